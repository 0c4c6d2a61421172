// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What clients of tubular send is a registration, or malformed: no label can say anything else.
#include "broker/protocol/label.h"

#include <gtest/gtest.h>

#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {
namespace {

TEST(Label, IsTheNameOfTheServiceToRegisterFor) {
        const auto text = request_of_label("udp_server-1.a#", true);
        ASSERT_TRUE(text) << text.error().message;
        const auto request = parse_request(Channel::kControl, *text, 1);
        ASSERT_TRUE(request) << request.error().message;
        EXPECT_EQ(request->verb, Verb::kStore);
        EXPECT_EQ(request->service, "udp_server-1.a");
}

TEST(Label, AllElseIsMalformed) {
        const std::string long_name(kMaxServiceName + 1, 'a');
        for (const std::string& text :
             {std::string(), std::string("#"), std::string("web"), std::string("web#\n"), std::string("web##"),
              std::string("web#\0", 5), std::string("web\nMIGRATE=1#"), std::string("FDSTORE=1\nFDNAME=web"),
              std::string("VERB=unload"), std::string("web server#"), long_name + "#"}) {
                const auto request = request_of_label(text, true);
                ASSERT_FALSE(request) << text;
                EXPECT_EQ(request.error().code, ResultCode::kMalformed);
        }
}

TEST(Label, WithoutADescriptorIsRefusedInWordsOfThisSocket) {
        const auto request = request_of_label("web#", false);
        ASSERT_FALSE(request);
        EXPECT_EQ(request.error().code, ResultCode::kMalformed);
        EXPECT_EQ(request.error().message,
                  "web# came without a descriptor; send those of the sockets to register in "
                  "the same message (SCM_RIGHTS)");
}

TEST(Label, TheAnswerIsOkOrWhatTheControlSocketWouldSay) {
        EXPECT_EQ(format_label_answer(ResultCode::kOk, "web is served"), "OK");
        EXPECT_EQ(format_label_answer(ResultCode::kBusy, "no"), "RESULT=busy\nERRNO=16\nMESSAGE=no\n");
}

}  // namespace
}  // namespace sockbroker
