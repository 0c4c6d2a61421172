// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The door: who gets in, what a flood costs, and that nobody's last copy of a connection is the core's.
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <thread>

#include "broker/hands/waiting_room.h"
#include "tests/netns/crew_fixture.h"
#include "tests/support/hostile.h"

namespace sockbroker::hands {
namespace {

double cpu_seconds(pid_t pid) {
        std::ifstream file("/proc/" + std::to_string(pid) + "/schedstat");
        double nanoseconds = 0;
        file >> nanoseconds;
        return nanoseconds / 1e9;
}

// As many connections as a user may have, each answered. Empty: one was not.
std::vector<OwnedFd> all_that_a_user_may_have(const std::string& path) {
        std::vector<OwnedFd> all;
        for (std::size_t i = 0; i < kMaxConnectionsPerUid; i++) {
                all.push_back(unix_socket(path, SOCK_SEQPACKET, false));
                if (ask(all.back().get(), "hello") != "done") {
                        return {};
                }
        }
        return all;
}

// Each has sent a request.
std::vector<OwnedFd> all_that_may_wait(const std::string& path) {
        std::vector<OwnedFd> all;
        for (std::size_t i = 0; i < WaitingRoom::kMaxOfUser; i++) {
                all.push_back(unix_socket(path, SOCK_SEQPACKET, false));
                test::must(send_record(all.back().get(), "hello") ? 0 : -1, "send");
        }
        return all;
}

TEST(Door, AUserHasSoManyConnectionsAndRootAsManyAsHeWants) {
        MiniCore core;
        for (const uid_t uid : {kHonest, uid_t{0}}) {
                const pid_t peer = spawn(uid, {}, [&, uid] {
                        auto all = all_that_a_user_may_have(core.control_path());
                        if (all.empty()) {
                                return 1;
                        }
                        if (uid == 0) {
                                const auto more = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                                return ask(more.get(), "hello") == "done" ? 0 : 2;
                        }
                        const auto waiting = all_that_may_wait(core.control_path());
                        const auto more = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        const auto refusal = next_record(more.get());
                        if (!refusal.starts_with("RESULT=rate-limited\n") || !next_record(more.get()).empty()) {
                                return 3;
                        }
                        pollfd early{waiting.front().get(), POLLIN, 0};
                        if (poll(&early, 1, 0) != 0) {
                                return 4;
                        }
                        // Then others get their places, in their order.
                        for (std::size_t i = 0; i < kMaxConnectionsPerUid; i++) {
                                all.pop_back();
                                if (next_record(waiting[i].get()) != "done") {
                                        return 5;
                                }
                        }
                        return 0;
                });
                EXPECT_EQ(core.run_while(peer), 0) << uid;
        }
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 0; }));
}

// However many it refuses, the core is told now and then only, and does not keep it waiting when it does not listen.
TEST(Door, TellsTheCoreWhomItHasRefusedAddedUp) {
        MiniCore core;
        constexpr std::uint32_t kRefused = 3000;
        int done[2];
        test::must(pipe2(done, O_CLOEXEC), "pipe");
        const pid_t peer = spawn(kHonest, {done[1]}, [&] {
                const auto all = all_that_a_user_may_have(core.control_path());
                const auto waiting = all_that_may_wait(core.control_path());
                if (all.empty() || write(done[1], "", 1) != 1) {
                        return 1;
                }
                for (std::uint32_t i = 0; i < kRefused; i++) {
                        const auto more = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        if (!next_record(more.get()).starts_with("RESULT=rate-limited\n")) {
                                return 2;
                        }
                }
                return 0;
        });
        close(done[1]);
        pollfd ready{done[0], POLLIN, 0};
        ASSERT_TRUE(core.run_until([&] { return poll(&ready, 1, 0) == 1; }));
        close(done[0]);
        int status = -1;
        ASSERT_EQ(waitpid(peer, &status, 0), peer);  // the core does nothing meanwhile
        EXPECT_EQ(status, 0);
        const auto sum = [&] {
                std::uint32_t all = 0;
                for (const auto& one : core.turned_away) {
                        all += one.count;
                }
                return all;
        };
        EXPECT_TRUE(core.run_until([&] { return sum() >= kRefused; }));
        EXPECT_EQ(sum(), kRefused);
        EXPECT_LE(core.turned_away.size(), 60U) << "one a second";
        for (const auto& one : core.turned_away) {
                EXPECT_EQ(one.uid, kHonest);
                EXPECT_EQ(one.why, DoorRefusal::kTooMany);
        }
}

TEST(Door, AFloodOfConnectionsKeepsNobodyOutAndCostsTheCoreNothing) {
        MiniCore core;
        ASSERT_TRUE(core.run_until([&] { return core.hands("sb-door").size() == 1; }));
        const auto control = core.control_path();
        int go[2];
        test::must(pipe2(go, O_CLOEXEC), "pipe");
        int counts[2];
        test::must(pipe2(counts, O_CLOEXEC), "pipe");
        std::vector<pid_t> floods;
        for (int i = 0; i < 2; i++) {
                floods.push_back(spawn(kHostile, {go[0], counts[1]}, [&] {
                        long count = 0;
                        pollfd ended{go[0], POLLIN, 0};
                        while (poll(&ended, 1, 0) == 0) {
                                for (int j = 0; j < 100; j++) {
                                        unix_socket(control, SOCK_SEQPACKET, false).reset();
                                        count++;
                                }
                        }
                        (void)!write(counts[1], &count, sizeof count);
                        return 0;
                }));
        }
        close(go[0]);
        const pid_t door = core.hands("sb-door")[0].pid;
        const double before = cpu_seconds(door);
        const pid_t peer = spawn(kHonest, {}, [&] {
                const auto socket = test::listener();
                std::array<std::int64_t, 100> waits{};
                for (auto& wait : waits) {
                        const auto began = steady_usec();
                        const auto connection = unix_socket(control, SOCK_SEQPACKET, false);
                        if (ask(connection.get(), "admit", {socket.get()}) != "done") {
                                return 1;
                        }
                        wait = steady_usec() - began;
                }
                // Who stands in one queue with a flood waits each time; on a busy machine anybody does now and then.
                std::ranges::sort(waits);
                if (waits[50] > 50'000 || waits[90] > 150'000) {
                        dprintf(2, "an honest peer waited %ld ms, each tenth time %ld\n", waits[50] / 1000,
                                waits[90] / 1000);
                        return 2;
                }
                return 0;
        });
        EXPECT_EQ(core.run_while(peer), 0);
        const double used = cpu_seconds(door) - before;
        close(go[1]);
        long all = 0;
        for (const pid_t flood : floods) {
                EXPECT_EQ(core.run_while(flood), 0);
                long count = 0;
                ASSERT_EQ(read(counts[0], &count, sizeof count), static_cast<ssize_t>(sizeof count));
                all += count;
        }
        close(counts[0]);
        close(counts[1]);
        std::printf("%ld connections, %.1f us of the door's time each\n", all, used * 1e6 / static_cast<double>(all));
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 0; }));
}

TEST(Door, TheFirstMessageHasTheTimeAtWhichItsConnectionWasAccepted) {
        MiniCore core;
        ASSERT_TRUE(core.run_until([&] { return core.hands("sb-door").size() == 1; }));
        const pid_t door = core.hands("sb-door")[0].pid;
        kill(door, SIGSTOP);
        const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
        ASSERT_TRUE(send_record(connection.get(), "first"));
        ASSERT_TRUE(send_record(connection.get(), "second"));
        kill(door, SIGCONT);
        ASSERT_TRUE(core.run_until([&] { return core.sent_usec.size() == 2; }));
        EXPECT_NE(core.sent_usec[0], 0);
        EXPECT_EQ(core.sent_usec[1], 0) << "nobody has looked at it before the core";
}

// What a connection has sent when it is refused was read by nobody.
TEST(Door, WhatARefusedConnectionHasSentIsClosedByAHand) {
        MiniCore core;
        const pid_t peer = spawn(kHostile, {}, [&] {
                const auto all = all_that_a_user_may_have(core.control_path());
                const auto waiting = all_that_may_wait(core.control_path());
                if (all.empty()) {
                        return 1;
                }
                int ends[2];
                test::must(pipe2(ends, O_CLOEXEC), "pipe");
                for (int i = 0; i < 100; i++) {
                        const auto more = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        (void)send_record(more.get(), "x", {ends[1]});
                }
                close(ends[1]);
                pollfd hangup{ends[0], 0, 0};
                return poll(&hangup, 1, 20'000) == 1 && hangup.revents == POLLHUP ? 0 : 2;
        });
        EXPECT_EQ(core.run_while(peer), 0);
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 0; }));
}

// Descriptors on their way are counted by user. Of too many the kernel says so at once, and again at once.
TEST(Door, WaitsWhileTooManyDescriptorsAreOnTheirWay) {
        MiniCore core;
        ASSERT_TRUE(core.run_until([&] { return core.hands("sb-door").size() == 1; }));
        const pid_t door = core.hands("sb-door")[0].pid;
        int parts[2];
        test::must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, parts), "socketpair");
        const auto ended = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
        ASSERT_TRUE(core.run_until([&] { return core.connections() == 1; }));
        const rlimit few{.rlim_cur = 64, .rlim_max = 64};
        test::must(prlimit(door, RLIMIT_NOFILE, &few, nullptr), "prlimit");
        ASSERT_TRUE(send_record(parts[0], "x", std::vector<int>(100, parts[1])));

        // One that is to be closed with what lies in it, and a new one.
        iovec nothing{};
        const msghdr end{.msg_iov = &nothing, .msg_iovlen = 1};
        test::must(static_cast<int>(sendmsg(ended.get(), &end, 0)), "send");
        ASSERT_TRUE(send_record(ended.get(), "x", {parts[1]}));
        ASSERT_TRUE(core.run_until([&] { return core.connections() == 0; }));
        const double before = cpu_seconds(door);
        const auto waits = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
        EXPECT_FALSE(core.run_until([&] { return core.connections() != 0; }, 1));
        EXPECT_LT(cpu_seconds(door) - before, 0.2) << "of one second";

        char byte = 0;
        test::must(static_cast<int>(recv(parts[1], &byte, 1, 0)), "recv");
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 1; }));
        close(parts[0]);
        close(parts[1]);
}

class Barred : public testing::Test {
protected:
        // Sends what a hand of disposal is left behind with, on so many connections, unread.
        pid_t attack(int connections, int ready, int go) {
                return spawn(0, {ready, go}, [&, connections, ready, go] {
                        const test::SilentFile silent(kHostile, false);
                        test::must(setresuid(kHostile, kHostile, kHostile), "setresuid");
                        for (int i = 0; i < connections; i++) {
                                const int one = unix_socket(core_.control_path(), SOCK_SEQPACKET, false).release();
                                (void)send_record(one, "x", {silent.file()});
                        }
                        (void)!write(ready, "r", 1);
                        char byte = 0;
                        (void)!read(go, &byte, 1);
                        silent.end();
                        return 0;
                });
        }

        MiniCore core_;
};

TEST_F(Barred, WhoKeepsHandsBusyGetsNoneAndOthersDo) {
        int ready[2];
        int go[2];
        test::must(pipe2(ready, O_CLOEXEC), "pipe");
        test::must(pipe2(go, O_CLOEXEC), "pipe");
        // More than a user may have: those that are refused have hostile things in their queues too.
        const pid_t hostile = attack(100, ready[1], go[0]);
        close(go[0]);
        char byte = 0;
        ASSERT_EQ(read(ready[0], &byte, 1), 1);
        ASSERT_TRUE(core_.run_until([&] { return core_.crew().left_behind() >= Ledger::kMaxPerUid; }));
        EXPECT_TRUE(core_.crew().bars({.uid = kHostile}));
        EXPECT_FALSE(core_.crew().bars({.uid = kHonest}));
        for (const char* text : {"admit", "x"}) {
                const pid_t peer = spawn(kHonest, {}, [&, text] {
                        const auto socket = test::listener();
                        const auto connection = unix_socket(core_.control_path(), SOCK_SEQPACKET, false);
                        return ask(connection.get(), text, {socket.get()}) == "done" ? 0 : 1;
                });
                EXPECT_EQ(core_.run_while(peer), 0) << text;
        }
        const pid_t again = spawn(kHostile, {}, [&] {
                const auto connection = unix_socket(core_.control_path(), SOCK_SEQPACKET, false);
                return next_record(connection.get()).starts_with("RESULT=rate-limited\n") ? 0 : 1;
        });
        EXPECT_EQ(core_.run_while(again), 0);
        // Those that are in flight when it comes to be barred are the only ones beyond.
        EXPECT_LE(core_.most_left_behind, Ledger::kMaxPerUid + 2);
        close(go[1]);
        EXPECT_EQ(core_.run_while(hostile), 0);
        EXPECT_TRUE(core_.run_until([&] { return core_.crew().left_behind() == 0; }));
        EXPECT_FALSE(core_.crew().bars({.uid = kHostile}));
        EXPECT_TRUE(core_.run_until([&] { return core_.connections() == 0; }));
        const pid_t forgiven = spawn(kHostile, {}, [&] {
                for (int i = 0; i < 10'000; i++) {
                        const auto connection = unix_socket(core_.control_path(), SOCK_SEQPACKET, false);
                        if (ask(connection.get(), "hello") == "done") {
                                return 0;
                        }
                        usleep(1000);
                }
                return 1;
        });
        EXPECT_EQ(core_.run_while(forgiven), 0);
        for (const int fd : {ready[0], ready[1]}) {
                close(fd);
        }
}

}  // namespace
}  // namespace sockbroker::hands
