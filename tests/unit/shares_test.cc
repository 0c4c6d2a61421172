// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who has more than his share of what waits to be closed.
#include "broker/hands/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace sockbroker::hands {
namespace {

constexpr std::size_t kRoom = 65'536;
const Party kUid{.uid = 1'000};
const Party kGroup{.group = "user-1000.slice"};

std::vector<Party> exited(Shares& shares, std::uint32_t child) {
        std::vector<Party> heard;
        shares.exited(child, [&](const Party& party) { heard.push_back(party); });
        return heard;
}

TEST(Shares, ASixteenthOfAProcessForAUidAndAQuarterForAGroup) {
        Shares shares(kRoom);
        EXPECT_FALSE(shares.add(1, kUid, 4'096));
        EXPECT_FALSE(shares.is_over(kUid));
        EXPECT_TRUE(shares.add(1, kUid, 1));
        EXPECT_TRUE(shares.is_over(kUid));
        EXPECT_FALSE(shares.add(1, kUid, 253)) << "said once";
        EXPECT_FALSE(shares.add(1, kGroup, 16'384));
        EXPECT_TRUE(shares.add(2, kGroup, 1));
        EXPECT_FALSE(shares.is_over({.uid = 1'001}));
}

TEST(Shares, WhereAProcessHasLittleRoomAMessageOrTwoAreLeft) {
        EXPECT_EQ(Shares::of_uid(65'536), 4'096U);
        EXPECT_EQ(Shares::of_uid(1'048'576), 4'096U);
        EXPECT_EQ(Shares::of_uid(16'384), 1'024U);
        EXPECT_EQ(Shares::of_uid(1'024), 506U);
}

TEST(Shares, CountAllProcessesUntilTheyHaveEnded) {
        Shares shares(kRoom);
        EXPECT_FALSE(shares.add(1, kUid, 3'000));
        EXPECT_TRUE(shares.add(2, kUid, 3'000));
        EXPECT_TRUE(exited(shares, 3).empty());
        EXPECT_EQ(exited(shares, 1), std::vector{kUid});
        EXPECT_FALSE(shares.is_over(kUid));
        EXPECT_TRUE(exited(shares, 2).empty()) << "it was heard already";
        EXPECT_FALSE(shares.add(4, kUid, 3'000)) << "nothing is left of what was";
}

TEST(Shares, FewProcessesHaveSomethingOfOneHoweverLittle) {
        for (const Party& party : {kUid, kGroup}) {
                Shares shares(kRoom);
                for (std::uint32_t child = 1; child <= Shares::kMaxProcesses; child++) {
                        EXPECT_FALSE(shares.add(child, party, 1));
                }
                EXPECT_FALSE(shares.add(1, party, 1));
                EXPECT_TRUE(shares.add(99, party, 1));
                EXPECT_EQ(exited(shares, 2), std::vector{party});
        }
}

// Of a group with as many uids as it likes, in 33 processes: however they are told apart, little of the room is theirs.
TEST(Shares, OfManyUidsOfOneGroupAreThoseOfTheGroup) {
        Shares shares(kRoom);
        std::size_t taken = 0;
        for (uid_t uid = 100'000; !shares.is_over(kGroup); uid++) {
                EXPECT_FALSE(shares.add(1, {.uid = uid}, 253));
                (void)shares.add(1, kGroup, 253);
                taken += 253;
        }
        EXPECT_LT(taken, kRoom / 3);
        const auto heard = exited(shares, 1);
        EXPECT_EQ(heard, std::vector{kGroup});
}

}  // namespace
}  // namespace sockbroker::hands
