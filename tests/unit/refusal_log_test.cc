// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusal_log.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

TEST(RefusalLog, WritesABurstOfOnePeerAndThenOnlyCounts) {
        RefusalLog log;
        for (unsigned i = 0; i < RefusalLog::kBurst; i++) {
                EXPECT_EQ(log.count(1000, 1), std::optional<std::uint64_t>(0));
        }
        EXPECT_EQ(log.count(1000, 2), std::nullopt);
        EXPECT_EQ(log.count(1000, 3), std::nullopt);
        EXPECT_EQ(log.total(), RefusalLog::kBurst + 2U);
        EXPECT_EQ(log.count(1001, 3), std::optional<std::uint64_t>(0)) << "another peer is not silenced";
}

TEST(RefusalLog, TheNextWindowTellsHowManyWereNotWritten) {
        RefusalLog log;
        for (unsigned i = 0; i < RefusalLog::kBurst + 5; i++) {
                static_cast<void>(log.count(1000, 1));
        }
        EXPECT_EQ(log.count(1000, RefusalLog::kWindowUsec + 2), std::optional<std::uint64_t>(5));
        EXPECT_EQ(log.count(1000, RefusalLog::kWindowUsec + 3), std::optional<std::uint64_t>(0));
}

TEST(RefusalLog, IsBoundedHoweverManyPeersThereAre) {
        RefusalLog log;
        for (uid_t uid = 0; uid < RefusalLog::kMaxPeers; uid++) {
                EXPECT_TRUE(log.count(uid, 1));
        }
        EXPECT_FALSE(log.count(99999, 2)) << "no room for a new peer while the windows of all others are open";
        EXPECT_TRUE(log.count(99999, RefusalLog::kWindowUsec + 2));
        EXPECT_EQ(log.total(), RefusalLog::kMaxPeers + 2);
}

}  // namespace
}  // namespace sockbroker
