// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/result_code.h"

#include <cctype>
#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

std::vector<ResultCode> all_codes() {
        std::vector<ResultCode> codes;
        for (int i = 0; i <= static_cast<int>(ResultCode::kInternal); i++) {
                codes.push_back(static_cast<ResultCode>(i));
        }
        return codes;
}

TEST(ResultCode, TheWordsAreThoseOfTheSpecification) {
        std::string words;
        for (const auto code : all_codes()) {
                words += std::string(to_string(code)) + " ";
        }
        EXPECT_EQ(words,
                  "ok malformed unknown-service ambiguous not-permitted wrong-socket not-listening foreign-netns mptcp "
                  "quota busy not-held rate-limited not-root internal ");
}

TEST(ResultCode, EachHasAnErrnoOfItsOwn) {
        std::set<int> seen;
        for (const auto code : all_codes()) {
                EXPECT_TRUE(seen.insert(to_errno(code)).second) << to_string(code);
        }
        EXPECT_EQ(to_errno(ResultCode::kOk), 0);
        EXPECT_EQ(to_errno(ResultCode::kNotPermitted), EACCES);
        EXPECT_EQ(to_errno(ResultCode::kNotRoot), EPERM);
}

// docs/protocol.md has a row "| `code` | ERRNO | cause | remedy |" for each.
TEST(ResultCode, TheManualHasARowForEachWithItsErrno) {
        std::ifstream file(SOCKBROKER_SOURCE_ROOT "/docs/protocol.md");
        ASSERT_TRUE(file);
        std::stringstream manual;
        manual << file.rdbuf();
        for (const auto code : all_codes()) {
                const std::string errnum = code == ResultCode::kOk ? "0" : strerrorname_np(to_errno(code));
                const std::string row = "\n| `" + std::string(to_string(code)) + "` | " + errnum + " |";
                EXPECT_NE(manual.str().find(row), std::string::npos) << "docs/protocol.md lacks" << row;
        }
}

}  // namespace
}  // namespace sockbroker
