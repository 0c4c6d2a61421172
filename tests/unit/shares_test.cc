// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who is served first on the control socket.
#include "broker/daemon/shares.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

constexpr uid_t kHonest = 61001;
constexpr uid_t kGreedy = 61666;
constexpr std::int64_t kSecond = 1'000'000;

TEST(Shares, WhoUsedLessComesFirst) {
        Shares shares;
        shares.charge(kHonest, 0, 5'000);
        EXPECT_EQ(shares.place_in_queue(kHonest, 5'000), 0) << "the burst is free";
        shares.charge(kHonest, 5'000, 50'000);
        shares.charge(kGreedy, 0, 500'000);
        EXPECT_GT(shares.place_in_queue(kHonest, 50'000), 0);
        EXPECT_LT(shares.place_in_queue(kHonest, 500'000), shares.place_in_queue(kGreedy, 500'000));
}

TEST(Shares, WhatWasUsedIsRepaidInTwentySecondsAtMost) {
        Shares shares;
        shares.charge(kGreedy, 0, 3600 * kSecond);
        EXPECT_GT(shares.place_in_queue(kGreedy, 3601 * kSecond), 0);
        EXPECT_EQ(shares.place_in_queue(kGreedy, 3620 * kSecond), 0);
}

TEST(Shares, AnotherConnectionIsNoWayAroundIt) {
        Shares shares;
        shares.connect(kGreedy);
        shares.charge(kGreedy, 0, kSecond);
        shares.disconnect(kGreedy);
        EXPECT_EQ(shares.connections(kGreedy), 0U);
        shares.connect(kGreedy);
        EXPECT_EQ(shares.connections(kGreedy), 1U);
        EXPECT_GT(shares.place_in_queue(kGreedy, kSecond), 0);
}

TEST(Shares, ManyUidsDoNotMakeItForgetWhoIsConnected) {
        Shares shares;
        shares.connect(kHonest);
        for (uid_t uid = 200'000; uid < 200'000 + 3 * Shares::kMaxUids; uid++) {
                shares.connect(uid);
                shares.charge(uid, 0, 1);
                shares.disconnect(uid);
        }
        EXPECT_EQ(shares.connections(kHonest), 1U);
}

}  // namespace
}  // namespace sockbroker
