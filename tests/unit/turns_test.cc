// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/turns.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

TEST(Turns, PutWhoHasUsedMoreBehindWhoHasUsedLess) {
        Turns turns;
        EXPECT_EQ(turns.level(1000, 0), 0);
        turns.used(1000, 19'000, 0);
        EXPECT_EQ(turns.level(1000, 0), 0) << "nearly 20 milliseconds are free";
        turns.used(1000, 2'000, 0);
        EXPECT_EQ(turns.level(1000, 0), 1);
        turns.used(1001, 200'000, 0);
        EXPECT_GT(turns.level(1001, 0), turns.level(1000, 0));
        EXPECT_EQ(turns.level(1002, 0), 0) << "nobody else";
}

TEST(Turns, TellASteadyLittleFromASteadyMuch) {
        Turns turns;
        for (std::int64_t now = 0; now < 10 * kSecond; now += 10'000) {
                turns.used(1, 500, now);    // a twentieth of the time
                turns.used(2, 9'000, now);  // all the rest
        }
        EXPECT_EQ(turns.level(1, 10 * kSecond), 3);
        EXPECT_EQ(turns.level(2, 10 * kSecond), 7);
}

TEST(Turns, ForgetWithinTenSecondsWhateverWasUsed) {
        Turns turns;
        turns.used(1000, 2 * kSecond, 0);
        EXPECT_EQ(turns.level(1000, 0), Turns::kLevels - 1);
        EXPECT_EQ(turns.level(1000, 10 * kSecond), 0);
}

TEST(Turns, AreBoundedHoweverManyUsersThereAre) {
        Turns turns;
        for (uid_t uid = 0; uid < 3 * Turns::kMaxUsers; uid++) {
                turns.used(uid, 40'000, 0);
        }
        turns.used(7, 40'000, 1);
        EXPECT_GT(turns.level(7, 1), 0);
}

}  // namespace
}  // namespace sockbroker
