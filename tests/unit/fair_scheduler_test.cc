// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/fair_scheduler.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

TEST(FairScheduler, PutsWhoHasUsedMoreBehindWhoHasUsedLess) {
        FairScheduler scheduler;
        EXPECT_EQ(scheduler.level(1000, 0), 0);
        scheduler.used(1000, 19'000, 0);
        EXPECT_EQ(scheduler.level(1000, 0), 0) << "nearly 20 milliseconds are free";
        scheduler.used(1000, 2'000, 0);
        EXPECT_EQ(scheduler.level(1000, 0), 1);
        scheduler.used(1001, 200'000, 0);
        EXPECT_GT(scheduler.level(1001, 0), scheduler.level(1000, 0));
        EXPECT_EQ(scheduler.level(1002, 0), 0) << "nobody else";
}

TEST(FairScheduler, TellsASteadyLittleFromASteadyMuch) {
        FairScheduler scheduler;
        for (std::int64_t now = 0; now < 10 * kSecond; now += 10'000) {
                scheduler.used(1, 500, now);    // a twentieth of the time
                scheduler.used(2, 9'000, now);  // all the rest
        }
        EXPECT_EQ(scheduler.level(1, 10 * kSecond), 3);
        EXPECT_EQ(scheduler.level(2, 10 * kSecond), 7);
}

TEST(FairScheduler, ForgetsWithinTenSecondsWhateverWasUsed) {
        FairScheduler scheduler;
        scheduler.used(1000, 2 * kSecond, 0);
        EXPECT_EQ(scheduler.level(1000, 0), FairScheduler::kLevels - 1);
        EXPECT_EQ(scheduler.level(1000, 10 * kSecond), 0);
}

TEST(FairScheduler, IsBoundedHoweverManyUsersThereAre) {
        FairScheduler scheduler;
        for (uid_t uid = 0; uid < 3 * FairScheduler::kMaxUsers; uid++) {
                scheduler.used(uid, 40'000, 0);
        }
        scheduler.used(7, 40'000, 1);
        EXPECT_GT(scheduler.level(7, 1), 0);
}

}  // namespace
}  // namespace sockbroker
