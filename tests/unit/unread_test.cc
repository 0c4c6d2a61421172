// SPDX-License-Identifier: LGPL-2.1-or-later
//
// When a socket counts as read by nobody, from what waits in it.
#include <gtest/gtest.h>

#include <initializer_list>

#include "broker/holds/unread.h"

namespace sockbroker {
namespace {

// One sample a second; whether it counts as unread for 5 s after the last.
bool unread(std::initializer_list<std::uint64_t> samples) {
        Unread queue;
        std::int64_t now = 100;
        for (const auto waiting : samples) {
                (void)queue.sample(waiting, ++now);
        }
        return queue.for_longer_than(5, now);
}

TEST(Unread, IsWhatWaitsAndBecomesNoLess) {
        EXPECT_TRUE(unread({1, 1, 1, 1, 1, 1}));
        EXPECT_TRUE(unread({1, 1, 2, 5, 5, 9})) << "clients that come are no reader";
        EXPECT_TRUE(unread({0, 0, 3, 3, 3, 3, 3, 3}));
        EXPECT_TRUE(unread({5, 4, 4, 4, 4, 4, 4})) << "somebody read, and has ended since";
}

TEST(Unread, IsNotWhatSomebodyReads) {
        EXPECT_FALSE(unread({}));
        EXPECT_FALSE(unread({0, 0, 0, 0, 0, 0, 0}));
        EXPECT_FALSE(unread({1, 1, 1, 0, 1, 1, 1})) << "empty in between";
        EXPECT_FALSE(unread({9, 9, 8, 9, 9, 9, 9})) << "less in between, of a queue that is never empty";
        EXPECT_FALSE(unread({1, 1, 1, 1, 1})) << "not for long yet";
}

TEST(Unread, NeedsMoreThanTheTwoEndsOfATimeInWhichNobodyLooked) {
        Unread queue;
        (void)queue.sample(1, 100);
        (void)queue.sample(1, 200);
        EXPECT_FALSE(queue.for_longer_than(5, 200));
}

TEST(Unread, SaysWhenSomethingWasRead) {
        Unread queue;
        EXPECT_FALSE(queue.sample(3, 1));
        EXPECT_FALSE(queue.sample(4, 2));
        EXPECT_TRUE(queue.sample(1, 3));
        EXPECT_FALSE(queue.sample(1, 4));
        EXPECT_TRUE(queue.sample(0, 5));
}

}  // namespace
}  // namespace sockbroker
