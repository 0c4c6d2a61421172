// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/recycler.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

TEST(Recycler, WhatRestsIsGivenOutOnlyAfterAGracePeriod) {
        Recycler recycler;
        recycler.add_free(1);
        EXPECT_EQ(recycler.take(), 1U);
        recycler.retire(1);
        EXPECT_EQ(recycler.take(), std::nullopt);
        EXPECT_TRUE(recycler.wants_grace());
        recycler.graced();
        EXPECT_FALSE(recycler.wants_grace());
        EXPECT_EQ(recycler.take(), 1U);
}

TEST(Recycler, NumbersThatArePreferredComeFirst) {
        Recycler recycler(10);
        for (const std::uint32_t number : {11U, 9U, 12U, 10U}) {
                recycler.add_free(number);
        }
        EXPECT_EQ(recycler.take(), 10U);
        EXPECT_EQ(recycler.take(), 9U);
        EXPECT_EQ(recycler.take(), 12U);
}

TEST(Recycler, WhileManyOfThemRestAGracePeriodIsWorthTheWait) {
        constexpr auto kMany = static_cast<std::uint32_t>(Recycler::kWorthTheWait);
        Recycler recycler(kMany);
        recycler.add_free(kMany + 1);
        recycler.retire(kMany + 2);
        for (std::uint32_t number = 1; number < kMany; number++) {
                recycler.retire(number);
                EXPECT_FALSE(recycler.wants_grace()) << "another one is free";
        }
        recycler.retire(kMany);
        EXPECT_TRUE(recycler.wants_grace());
        recycler.graced();
        EXPECT_LE(recycler.take(), kMany);
        EXPECT_FALSE(recycler.wants_grace());
}

}  // namespace
}  // namespace sockbroker
