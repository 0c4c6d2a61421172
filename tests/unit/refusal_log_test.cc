// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusal_log.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

constexpr std::int64_t kNextWindow = RefusalLog::kWindowUsec + 2;

TEST(RefusalLog, WritesABurstOfOnePeerAndThenOnlyCounts) {
        RefusalLog log;
        for (unsigned i = 0; i < RefusalLog::kBurst; i++) {
                EXPECT_EQ(log.count("", 1000, 1), std::optional<std::uint64_t>(0));
        }
        EXPECT_EQ(log.count("", 1000, 2), std::nullopt);
        EXPECT_EQ(log.count("", 1000, 3), std::nullopt);
        EXPECT_EQ(log.total(), RefusalLog::kBurst + 2U);
        EXPECT_EQ(log.count("", 1001, 3), std::optional<std::uint64_t>(0)) << "another peer is not silenced";
        EXPECT_EQ(log.count("a.service", 1000, 3), std::optional<std::uint64_t>(0)) << "nor the same user's other unit";
}

TEST(RefusalLog, TheNextWindowTellsHowManyWereNotWritten) {
        RefusalLog log;
        for (unsigned i = 0; i < RefusalLog::kBurst + 5; i++) {
                static_cast<void>(log.count("", 1000, 1));
        }
        EXPECT_EQ(log.count("", 1000, kNextWindow), std::optional<std::uint64_t>(5));
        EXPECT_EQ(log.count("", 1000, kNextWindow + 1), std::optional<std::uint64_t>(0));
}

TEST(RefusalLog, SubuidsOfOneUserShareOneAllowanceAndTakeNobodyElses) {
        RefusalLog log;
        unsigned written = 0;
        for (uid_t uid = 165536; uid < 165536 + 65536; uid++) {
                written += log.count("user@1000.service", uid, 1).has_value() ? 1 : 0;
        }
        EXPECT_EQ(written, RefusalLog::kGroupBurst);
        EXPECT_TRUE(log.count("user@1000.service", 1000, 2)) << "an ordinary user in the same unit";
        EXPECT_TRUE(log.count("user@1000.service", 100000, 2)) << "another user's subuids";
        EXPECT_TRUE(log.count("other.service", 165600, 2)) << "the same uid in another unit";
        const auto left_out = log.take_left_out(kNextWindow);
        ASSERT_EQ(left_out.size(), 1U);
        EXPECT_EQ(left_out[0].unit, "user@1000.service");
        EXPECT_EQ(left_out[0].count, 65536 - RefusalLog::kGroupBurst);
        EXPECT_EQ(left_out[0].last_uid, 165536U + 65535);
        EXPECT_TRUE(log.take_left_out(kNextWindow).empty()) << "told once";
}

TEST(RefusalLog, IsBoundedHoweverManyPeersThereAreAndANewOneIsHeard) {
        RefusalLog log;
        for (unsigned round = 0; round < RefusalLog::kBurst + 1; round++) {
                for (uid_t uid = 0; uid < RefusalLog::kMaxGroups; uid++) {
                        static_cast<void>(log.count("", uid, 1 + uid));
                }
        }
        EXPECT_TRUE(log.count("", 99999, 5000));
        EXPECT_EQ(log.total(), RefusalLog::kMaxGroups * (RefusalLog::kBurst + 1) + 1);
        auto left_out = log.take_left_out(5001);
        ASSERT_EQ(left_out.size(), 1U) << "of the one that made place";
        EXPECT_EQ(left_out[0].first_uid, 0U);
        std::uint64_t all = left_out[0].count;
        left_out = log.take_left_out(5000 + kNextWindow);
        EXPECT_LE(left_out.size(), 64U) << "added up";
        for (const auto& one : left_out) {
                all += one.count;
        }
        EXPECT_EQ(all, RefusalLog::kMaxGroups) << "none is forgotten";
}

TEST(RefusalLog, OneEntryMayTellOfManyAndAUserMayHaveASmallerBurst) {
        RefusalLog log({.of_uid = 1, .of_group = 2});
        EXPECT_EQ(log.count("", 165536, 1, 40), std::optional<std::uint64_t>(0));
        EXPECT_EQ(log.count("", 165536, 2, 30), std::nullopt);
        EXPECT_EQ(log.count("", 165537, 3, 20), std::optional<std::uint64_t>(30));
        EXPECT_EQ(log.count("", 165538, 4, 10), std::nullopt) << "of the same range";
        EXPECT_EQ(log.total(), 100U);
        const auto left_out = log.take_left_out(kNextWindow);
        ASSERT_EQ(left_out.size(), 1U);
        EXPECT_EQ(left_out[0].count, 10U);
        EXPECT_EQ(left_out[0].first_uid, 165538U);
}

}  // namespace
}  // namespace sockbroker
