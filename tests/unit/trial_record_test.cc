// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/trial_record.h"

#include <string>

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kHour = 3600 * kSecond;

TrialRecord a_record() {
        return {.policy = std::string(32, 'a'),
                .before = std::string(32, '0'),
                .boot = "0123456789abcdef0123456789abcdef",
                .until_usec = 1'000 * kSecond};
}

TEST(TrialRecord, IsReadAsItWasWritten) {
        EXPECT_EQ(parse_trial_record(to_text(a_record())), a_record());
}

TEST(TrialRecord, OneThatWasCutShortOrGoesOnIsNone) {
        const auto whole = to_text(a_record());
        for (std::size_t size = 0; size < whole.size(); size++) {
                EXPECT_FALSE(parse_trial_record(whole.substr(0, size))) << size;
        }
        for (const char* more : {"\n", " ", "x", "until 1\n"}) {
                EXPECT_FALSE(parse_trial_record(whole + more)) << more;
        }
}

TEST(TrialRecord, OneWithAnyOtherByteIsNoneOrAnother) {
        const auto whole = to_text(a_record());
        for (std::size_t at = 0; at < whole.size(); at++) {
                for (const char byte : {'\0', '\n', ' ', '-', '+', 'A', 'g', '\xff'}) {
                        auto text = whole;
                        text[at] = byte;
                        EXPECT_EQ(parse_trial_record(text).has_value(), text == whole) << at << " " << int{byte};
                }
        }
}

TEST(TrialRecord, IsOverAtItsTimeInAnotherBootAndWhereNoTrialCanLastSoLong) {
        const auto record = a_record();
        const auto until = record.until_usec;
        EXPECT_FALSE(is_over(record, record.boot, until - 1));
        EXPECT_TRUE(is_over(record, record.boot, until));
        EXPECT_TRUE(is_over(record, record.boot, until + kHour));
        EXPECT_TRUE(is_over(record, std::string(32, 'b'), until - 1));
        auto far = record;
        far.until_usec = 12 * kHour;
        EXPECT_FALSE(is_over(far, far.boot, 0));
        EXPECT_TRUE(is_over(far, far.boot, -1)) << "the longest span that may be asked for is 12 hours";
        auto unknown = record;
        unknown.boot = kUnknownBoot;
        EXPECT_TRUE(is_over(unknown, kUnknownBoot, until - 1)) << "any boot may be that one";
}

}  // namespace
}  // namespace sockbroker
