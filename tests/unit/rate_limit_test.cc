// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/rate_limit.h"

#include <gtest/gtest.h>
#include <sys/types.h>

namespace sockbroker {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

TEST(RateLimit, AllowsABurstAndThenOneForEachThatIsDue) {
        RateLimit<uid_t> rates({.interval_usec = 10 * kSecond, .burst = 5});
        for (int i = 0; i < 5; i++) {
                EXPECT_EQ(rates.take(1000, 100 * kSecond), 0) << i;
        }
        EXPECT_NEAR(static_cast<double>(rates.take(1000, 100 * kSecond)), 2.0 * kSecond, 2) << "says when the next may";
        EXPECT_GT(rates.take(1000, 101 * kSecond), 0);
        EXPECT_EQ(rates.take(1000, 102 * kSecond), 0) << "what was refused did not put it off";
        EXPECT_GT(rates.take(1000, 102 * kSecond), 0);
}

TEST(RateLimit, IsForEachPeer) {
        RateLimit<uid_t> rates({.interval_usec = kSecond, .burst = 1});
        EXPECT_EQ(rates.take(1000, 0), 0);
        EXPECT_GT(rates.take(1000, 0), 0);
        EXPECT_EQ(rates.take(1001, 0), 0);
}

TEST(RateLimit, GivesNoMoreThanABurstAfterALongSilence) {
        RateLimit<uid_t> rates({.interval_usec = kSecond, .burst = 3});
        EXPECT_EQ(rates.take(1000, 0), 0);
        int taken = 0;
        while (rates.take(1000, 3600 * kSecond) == 0) {
                taken++;
        }
        EXPECT_EQ(taken, 3);
}

TEST(RateLimit, IsOffWithoutABurstOrAnInterval) {
        RateLimit<uid_t> no_burst({.interval_usec = kSecond, .burst = 0});
        RateLimit<uid_t> no_interval({.interval_usec = 0, .burst = 1});
        for (int i = 0; i < 1000; i++) {
                EXPECT_EQ(no_burst.take(1, 0), 0);
                EXPECT_EQ(no_interval.take(1, 0), 0);
        }
}

// A user with 65,536 uids of his own makes room for nobody but himself: what he owes most is kept.
TEST(RateLimit, FillsUpWithoutForgettingWhoOwesMost) {
        RateLimit<uid_t> rates({.interval_usec = 1000 * kSecond, .burst = 100});
        while (rates.take(7, 0) == 0) {
        }
        for (uid_t uid = 100'000; uid < 165'536; uid++) {
                EXPECT_EQ(rates.take(uid, 1), 0) << "a newcomer is served";
        }
        EXPECT_GT(rates.take(7, 2), 0);
}

}  // namespace
}  // namespace sockbroker
