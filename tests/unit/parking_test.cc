// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/parking.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

TEST(Parking, GivesOutEachEntryOnceAndNoneThatIsInUse) {
        Parking parking(100, 3);
        std::set<std::uint32_t> entries;
        std::vector<Parking::Place> places;
        for (int i = 0; i < 3; i++) {
                auto place = parking.take();
                ASSERT_TRUE(place);
                entries.insert(place->entry());
                places.push_back(std::move(*place));
        }
        EXPECT_EQ(entries, (std::set<std::uint32_t>{100, 101, 102}));
        EXPECT_FALSE(parking.take());
        const auto given_back = places.back().entry();
        places.pop_back();
        for (int i = 0; i < 10; i++) {
                const auto again = parking.take();
                ASSERT_TRUE(again);
                EXPECT_EQ(again->entry(), given_back) << "the only one that nobody has";
        }
}

TEST(Parking, APlaceMayOutliveIt) {
        std::optional<Parking::Place> place;
        {
                Parking parking(1, 1);
                place.emplace(std::move(*parking.take()));
        }
        EXPECT_EQ(place->entry(), 1U);
}

}  // namespace
}  // namespace sockbroker
