// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/request.h"

#include <gtest/gtest.h>

#include "tests/unit/support/mistakes.h"

namespace sockbroker {
namespace {

struct Good {
        Channel channel;
        std::string text;
        std::size_t fds;
        Verb verb;
        std::string service;
};

TEST(Request, WhatTheProtocolAllows) {
        const auto notify = Channel::kNotify;
        const auto control = Channel::kControl;
        const std::vector<Good> table = {
                {notify, "FDSTORE=1\nFDNAME=web", 1, Verb::kStore, "web"},
                {notify, "FDNAME=web\nFDSTORE=1\n", 253, Verb::kStore, "web"},
                {notify, "FDSTORE=1", 2, Verb::kStore, ""},
                {notify, "FDSTORE=1\nFDPOLL=0\nFDNAME=a", 1, Verb::kStore, "a"},
                {notify, "READY=1\nSTATUS=a=b c\nFDSTORE=1\nFDNAME=web\nMAINPID=12", 1, Verb::kStore, "web"},
                {notify, "FDSTORE=1\nFDNAME=" + std::string(40, 'a'), 1, Verb::kStore, std::string(40, 'a')},
                {notify, "FDSTORE=1\nFDNAME=A.z_0-9\n\n\n", 1, Verb::kStore, "A.z_0-9"},
                {notify, "FDSTOREREMOVE=1\nFDNAME=web", 0, Verb::kRemove, "web"},
                {notify, "FDSTOREREMOVE=1", 0, Verb::kRemove, ""},
                {notify, "BARRIER=1", 1, Verb::kBarrier, ""},
                {notify, "BARRIER=1\n", 1, Verb::kBarrier, ""},
                {notify, "", 0, Verb::kNothing, ""},
                {notify, "\n", 0, Verb::kNothing, ""},
                {notify, "READY=1", 0, Verb::kNothing, ""},
                {notify, "READY=1\nREADY=1\nX_MINE=\xff\x01\n", 0, Verb::kNothing, ""},
                {notify, "VERB=unload", 0, Verb::kNothing, ""},  // sd_notify(3) has no such key
                {notify, "FDRETRIEVE=1", 0, Verb::kNothing, ""},
                {control, "FDSTORE=1\nFDNAME=web\nFDPOLL=0\n", 1, Verb::kStore, "web"},
                {control, "FDSTOREREMOVE=1\nFDNAME=web", 0, Verb::kRemove, "web"},
                {control, "BARRIER=1", 1, Verb::kBarrier, ""},
                {control, "FDRETRIEVE=1\nFDNAME=web", 0, Verb::kRetrieve, "web"},
                {control, "FDRETRIEVE=1", 0, Verb::kRetrieve, ""},
                {control, "VERB=status", 0, Verb::kStatus, ""},
                {control, "VERB=list\n", 0, Verb::kList, ""},
                {control, "VERB=bindings", 0, Verb::kBindings, ""},
                {control, "VERB=reload", 0, Verb::kReload, ""},
                {control, "FDNAME=web\nVERB=unregister", 0, Verb::kUnregister, "web"},
                {control, "VERB=unload", 0, Verb::kUnload, ""},
                {control, "VERB=hold\nFDNAME=web\nTIMEOUT_USEC=43200000000", 0, Verb::kHold, "web"},
                {notify, "TIMEOUT_USEC=x", 0, Verb::kNothing, ""},
                {notify, "FDSTORE=1\nFDNAME=web\nMIGRATE=x", 1, Verb::kStore, "web"},
                {control, "FDSTORE=1\nFDNAME=web\nMIGRATE=1", 1, Verb::kStore, "web"},
                {control, "INHERIT=1\nFAMILY=ipv6\nFDSTORE=1\nFDNAME=web", 1, Verb::kStore, "web"},
                {notify, "FDSTORE=1\nFDNAME=web\nINHERIT=x\nFAMILY=x", 1, Verb::kStore, "web"},
                {control, "VERB=version", 0, Verb::kVersion, ""},
                {control, "VERB=match\nPROTOCOL=tcp\nADDRESS=0.0.0.0\nPORT=80", 0, Verb::kMatch, ""},
                {control, "VERB=prepare\nPID=7", 0, Verb::kPrepare, ""},
                {control, "VERB=prepare\nFDNAME=web", 0, Verb::kPrepare, "web"},
                {control, "FDNAME=a:b\nPORT=65535\nADDRESS=::\nPROTOCOL=udp\nPID=7\nVERB=match", 0, Verb::kMatch, ""},
                {control, "FDSTORE=1\nPID=4194304", 1, Verb::kStore, ""},
                {control, "FDRETRIEVE=1\nPID=1", 0, Verb::kRetrieve, ""},
                {notify, "FDSTORE=1\nPID=x\nPORT=x", 1, Verb::kStore, ""},  // keys of control alone
        };
        for (const auto& good : table) {
                const auto request = parse_request(good.channel, good.text, good.fds);
                ASSERT_TRUE(request) << good.text << ": " << request.error().message;
                EXPECT_EQ(request->verb, good.verb) << good.text;
                EXPECT_EQ(request->service, good.service) << good.text;
        }
}

TEST(Request, ExactlyTheLimitsAreTaken) {
        std::string text = "FDSTORE=1\nFDNAME=web\nPAD=";
        text.resize(kMaxMessageBytes, 'x');
        EXPECT_TRUE(parse_request(Channel::kNotify, text, kMaxMessageFds));
        EXPECT_EQ(parse_request(Channel::kNotify, text + "x", 1).error().message, refuse_truncated().message);
        EXPECT_EQ(parse_request(Channel::kNotify, "FDSTORE=1", kMaxMessageFds + 1).error().message,
                  refuse_truncated().message);
}

TEST(Request, EachMistakeHasItsExactMessage) {
        std::size_t checked = 0;
        for (const auto& mistake : test::read_mistakes()) {
                for (const auto channel : mistake.channels) {
                        const auto request = parse_request(channel, mistake.text, mistake.fds.size());
                        if (mistake.result != to_string(ResultCode::kMalformed)) {
                                EXPECT_TRUE(request) << mistake.name << ": " << request.error().message;
                                continue;
                        }
                        checked++;
                        ASSERT_FALSE(request) << mistake.name << " was taken";
                        EXPECT_EQ(request.error().code, ResultCode::kMalformed) << mistake.name;
                        EXPECT_EQ(request.error().message, mistake.message) << mistake.name;
                }
        }
        EXPECT_GE(checked, 40U);
}

TEST(Request, WhatIsFormattedReadsBack) {
        for (const auto& request :
             {Request{Verb::kStore, "web"}, Request{Verb::kStore, ""}, Request{Verb::kRemove, "a"},
              Request{Verb::kBarrier, ""}, Request{Verb::kRetrieve, "b"}, Request{Verb::kUnregister, "c"},
              Request{Verb::kStatus, ""}, Request{.verb = Verb::kStore, .service = "d", .migrate = true},
              Request{.verb = Verb::kStore, .inherit = true}, Request{.verb = Verb::kStore, .family = Family::kIpv4},
              Request{.verb = Verb::kStore, .migrate = true, .inherit = true, .family = Family::kIpv6}}) {
                const std::size_t fds = request.verb == Verb::kStore || request.verb == Verb::kBarrier ? 1 : 0;
                const auto again = parse_request(Channel::kControl, format_request(request), fds);
                ASSERT_TRUE(again) << again.error().message;
                EXPECT_EQ(again->verb, request.verb);
                EXPECT_EQ(again->service, request.service);
                EXPECT_EQ(again->migrate, request.migrate);
                EXPECT_EQ(again->inherit, request.inherit);
                EXPECT_EQ(again->family, request.family);
        }
}

TEST(Request, AMatchReadsBack) {
        const std::string text = "VERB=match\nPROTOCOL=udp\nADDRESS=2606:4700::1\nPORT=53\nFDNAME=a:b.c\nPID=12\n";
        const auto request = parse_request(Channel::kControl, text, 0);
        ASSERT_TRUE(request) << request.error().message;
        EXPECT_EQ(request->bind.protocol, Protocol::kUdp);
        EXPECT_EQ(request->bind.at.to_string(), "[2606:4700::1]:53");
        EXPECT_EQ(request->bind.services, (std::vector<std::string>{"a", "b.c"}));
        EXPECT_EQ(request->pid, 12);
        EXPECT_EQ(format_request(*request), text);
}

TEST(Request, AnAnswerIsThreeLinesWhateverTheMessageHolds) {
        EXPECT_EQ(format_result(ResultCode::kOk, ""), "RESULT=ok\nERRNO=0\nMESSAGE=\n");
        EXPECT_EQ(format_result(ResultCode::kBusy, "a\nRESULT=ok\r\x1b[1m\x7f"),
                  "RESULT=busy\nERRNO=16\nMESSAGE=a RESULT=ok  [1m \n");
}

}  // namespace
}  // namespace sockbroker
