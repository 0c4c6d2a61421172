// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/turns.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

TEST(Turns, PutWhoUsesMoreThanAShareBehindTheOthersUntilThatIsOver) {
        Turns turns;
        EXPECT_FALSE(turns.is_behind(1000, 0));
        turns.used(1000, 10'000, 0);
        EXPECT_FALSE(turns.is_behind(1000, 0)) << "ten milliseconds are free";
        turns.used(1000, 1000, 0);
        EXPECT_TRUE(turns.is_behind(1000, 0));
        EXPECT_FALSE(turns.is_behind(1001, 0)) << "nobody else";
        EXPECT_TRUE(turns.is_behind(1000, 99'999));
        EXPECT_FALSE(turns.is_behind(1000, 100'000)) << "a hundredth of the time is everybody's";
}

TEST(Turns, ForgetWithinTenSecondsWhateverWasUsed) {
        Turns turns;
        turns.used(1000, 3'600'000'000, 0);
        EXPECT_TRUE(turns.is_behind(1000, Turns::kLongestUsec - 1));
        EXPECT_FALSE(turns.is_behind(1000, Turns::kLongestUsec));
}

TEST(Turns, AreBoundedHoweverManyUsersThereAre) {
        Turns turns;
        for (uid_t uid = 0; uid < 3 * Turns::kMaxUsers; uid++) {
                turns.used(uid, 20'000, 0);
        }
        turns.used(7, 20'000, 1);
        EXPECT_TRUE(turns.is_behind(7, 1));
}

}  // namespace
}  // namespace sockbroker
