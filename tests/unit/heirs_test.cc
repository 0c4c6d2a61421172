// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who has a socket when the process that it was registered for has ended: real processes, real sockets, and /proc.
#include "sandbox/supervise/heirs.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/support/child.h"
#include "tests/unit/support/open_fds.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::supervise {
namespace {

using test::Child;

// It has all descriptors of this process.
std::unique_ptr<Child> holder() {
        return std::make_unique<Child>([] { return ::pause(); });
}

void end(std::unique_ptr<Child>& child, Heirs& heirs) {
        child.reset();
        heirs.note_ended();
}

TEST(Heirs, AreLookedForUntilOneIsWatched) {
        const auto socket = test::listener();
        Heirs heirs(8);
        auto first = holder();
        auto second = holder();
        auto third = holder();
        heirs.watch(first->pid(), 7, socket.get());
        heirs.note_ended();
        EXPECT_FALSE(heirs.any());
        end(first, heirs);
        ASSERT_TRUE(heirs.any());
        end(second, heirs);
        for (int i = 0; i < 3; i++) {
                const auto found = heirs.find();
                ASSERT_EQ(found.size(), 1U);
                EXPECT_EQ(found[0].cookie, 7U);
                EXPECT_EQ(found[0].pid, third->pid());
                EXPECT_EQ(found[0].number, socket.get());
                EXPECT_TRUE(heirs.any()) << "nobody has said that it is that one now";
        }
        heirs.watch(third->pid(), 7, socket.get());
        EXPECT_FALSE(heirs.any());
        end(third, heirs);
        EXPECT_TRUE(heirs.any());
        EXPECT_TRUE(heirs.find().empty());
        EXPECT_FALSE(heirs.any()) << "nobody has it";
}

TEST(Heirs, OfSeveralTheOneWithTheLowestPidIsTakenAndItsLowestDescriptor) {
        const auto socket = test::listener();
        const OwnedFd copy(::dup(socket.get()));
        Heirs heirs(8);
        auto first = holder();
        std::vector<std::unique_ptr<Child>> others;
        std::set<pid_t> pids;
        for (int i = 0; i < 5; i++) {
                others.push_back(holder());
                pids.insert(others.back()->pid());
        }
        heirs.watch(first->pid(), 7, socket.get());
        end(first, heirs);
        const auto found = heirs.find();
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].pid, *pids.begin());
        EXPECT_EQ(found[0].number, std::min(socket.get(), copy.get()));
}

TEST(Heirs, OfOneThatHasEndedAlreadyAreLookedFor) {
        const auto socket = test::listener();
        Heirs heirs(8);
        auto first = holder();
        auto second = holder();
        const pid_t gone = first->pid();
        first.reset();
        heirs.watch(gone, 7, socket.get());
        ASSERT_TRUE(heirs.any());
        ASSERT_EQ(heirs.find().size(), 1U);
        heirs.forget(7);
        EXPECT_FALSE(heirs.any());
        EXPECT_TRUE(heirs.find().empty());
}

TEST(Heirs, OfManySocketsAreFoundInSeveralParts) {
        constexpr std::size_t kMany = 300;  // more than one part
        std::vector<OwnedFd> sockets;
        for (std::size_t i = 0; i < kMany; i++) {
                sockets.push_back(test::listener());
        }
        Heirs heirs(kMany);
        auto first = holder();
        auto second = holder();
        const auto before = test::open_fds();
        for (std::size_t i = 0; i < kMany; i++) {
                heirs.watch(first->pid(), i, sockets[i].get());
        }
        EXPECT_EQ(test::open_fds(), before + 1) << "of the process, not of each socket";
        end(first, heirs);
        EXPECT_EQ(test::open_fds(), before);
        std::size_t parts = 0;
        for (; heirs.any(); parts++) {
                ASSERT_LT(parts, 5U);
                for (const auto& heir : heirs.find()) {
                        EXPECT_EQ(heir.number, sockets[heir.cookie].get());
                        heirs.watch(heir.pid, heir.cookie, sockets[heir.cookie].get());
                }
        }
        EXPECT_GE(parts, 2U);
        end(second, heirs);
        EXPECT_TRUE(heirs.any());
}

TEST(Heirs, OfTooManySocketsThoseRegisteredLastHaveSome) {
        std::vector<OwnedFd> sockets;
        Heirs heirs(2);
        for (std::uint64_t i = 0; i < 3; i++) {
                sockets.push_back(test::listener());
        }
        auto first = holder();
        auto second = holder();
        for (std::uint64_t i = 0; i < 3; i++) {
                heirs.watch(first->pid(), i, sockets[i].get());
        }
        end(first, heirs);
        std::vector<std::uint64_t> cookies;
        for (const auto& heir : heirs.find()) {
                cookies.push_back(heir.cookie);
        }
        EXPECT_EQ(cookies, (std::vector<std::uint64_t>{1, 2}));
}

}  // namespace
}  // namespace sockbroker::supervise
