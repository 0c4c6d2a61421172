// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door_refusals.h"

#include <gtest/gtest.h>

#include "broker/hands/ledger.h"

namespace sockbroker::hands {
namespace {

std::map<std::pair<uid_t, DoorRefusal>, std::uint32_t> all_of(DoorRefusals& refusals) {
        std::map<std::pair<uid_t, DoorRefusal>, std::uint32_t> all;
        while (const auto next = refusals.next()) {
                all[{next->uid, next->why}] = next->count;
                refusals.told();
        }
        return all;
}

TEST(DoorRefusals, AreToldASecondAfterTheFirstAddedUpByUserAndReason) {
        DoorRefusals refusals;
        EXPECT_EQ(refusals.due_in(5), std::nullopt);
        for (int i = 0; i < 3; i++) {
                refusals.count(1000, DoorRefusal::kTooMany, 5 + i);
        }
        refusals.count(1000, DoorRefusal::kBarred, 9);
        refusals.count(1001, DoorRefusal::kTooMany, 10);
        EXPECT_EQ(refusals.due_in(5), DoorRefusals::kCollectUsec);
        EXPECT_EQ(refusals.due_in(5 + DoorRefusals::kCollectUsec), 0);
        EXPECT_EQ(refusals.due_in(5 + 9 * DoorRefusals::kCollectUsec), 0);
        const auto all = all_of(refusals);
        EXPECT_EQ(all.size(), 3U);
        EXPECT_EQ(all.at({1000, DoorRefusal::kTooMany}), 3U);
        EXPECT_EQ(all.at({1000, DoorRefusal::kBarred}), 1U);
        EXPECT_EQ(all.at({1001, DoorRefusal::kTooMany}), 1U);
        EXPECT_EQ(refusals.due_in(5 + 9 * DoorRefusals::kCollectUsec), std::nullopt);
}

TEST(DoorRefusals, StayUntilTheyWereTold) {
        DoorRefusals refusals;
        refusals.count(1000, DoorRefusal::kTooMany, 1);
        EXPECT_EQ(refusals.next()->count, 1U);
        refusals.count(1000, DoorRefusal::kTooMany, 2);
        EXPECT_EQ(refusals.next()->count, 2U);
        refusals.told();
        EXPECT_FALSE(refusals.next());
}

TEST(DoorRefusals, AreBoundedHoweverManyUsersThereAreAndNoneIsForgotten) {
        DoorRefusals refusals;
        constexpr uid_t kUsers = 10'000;
        for (uid_t uid = 0; uid < kUsers; uid++) {
                refusals.count(uid, DoorRefusal::kTooMany, 1);
        }
        refusals.count(0, DoorRefusal::kTooMany, 1);  // one that is known already
        refusals.count(kUsers, DoorRefusal::kBarred, 1);
        const auto all = all_of(refusals);
        EXPECT_EQ(all.size(), DoorRefusals::kMaxRecords + 2);
        EXPECT_EQ(all.at({0, DoorRefusal::kTooMany}), 2U);
        EXPECT_EQ(all.at({kNobody, DoorRefusal::kTooMany}), kUsers - DoorRefusals::kMaxRecords);
        EXPECT_EQ(all.at({kNobody, DoorRefusal::kBarred}), 1U);
}

}  // namespace
}  // namespace sockbroker::hands
