// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names in PID 1's store: short, each once, and never more of them than one environment string takes.
#include <gtest/gtest.h>

#include <set>

#include "broker/holds/store_names.h"

namespace sockbroker {
namespace {

TEST(StoreNames, AreShortAndEachIsGivenOnce) {
        StoreNames names(4096);
        std::set<std::string> seen;
        std::size_t bytes = 0;
        while (const auto name = names.take()) {
                EXPECT_TRUE(seen.insert(*name).second) << *name;
                EXPECT_EQ(name->find(':'), std::string::npos) << "separates them";
                bytes += name->size() + 1;
        }
        EXPECT_EQ(seen.size(), 4096U);
        EXPECT_LT(bytes, 16U * 1024);
}

TEST(StoreNames, AreNeverMoreThanOneEnvironmentStringTakes) {
        StoreNames names(1U << 20);
        std::string all = "LISTEN_FDNAMES=sockbrokerd.socket:sockbrokerd.socket";
        std::size_t count = 0;
        for (auto name = names.take(); name; name = names.take()) {
                all += ":" + *name;
                count++;
        }
        EXPECT_LT(all.size() + 1, 128U * 1024);
        EXPECT_GT(count, 30'000U);
}

TEST(StoreNames, OfAnEarlierBrokerCountAndAreNotGivenAgain) {
        StoreNames names(4096);
        for (int i = 0; i < 5'500; i++) {  // more than there may be now
                names.reserve("held-00000000000" + std::to_string(10'000 + i));
        }
        EXPECT_FALSE(names.take());
        for (int i = 0; i < 5'500; i++) {
                names.release("held-00000000000" + std::to_string(10'000 + i));
        }
        names.reserve("0");
        names.reserve("2");
        EXPECT_EQ(names.take(), "1");
        EXPECT_EQ(names.take(), "3");
}

TEST(StoreNames, ThatAreReleasedAreGivenAgainTheShortestFirst) {
        StoreNames names(100);
        for (int i = 0; i < 80; i++) {
                (void)names.take();
        }
        names.release("00");
        names.release("5");
        names.release("5");
        EXPECT_EQ(names.take(), "5");
        EXPECT_EQ(names.take(), "00");
        const auto next = names.take();
        ASSERT_TRUE(next);
        EXPECT_EQ(next->size(), 2U);
}

}  // namespace
}  // namespace sockbroker
