// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Any process of the crew may be killed at any point: others take its place, and nothing waits for it. They all end
// with the core.
#include <poll.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <fstream>

#include "broker/hands/hand_process.h"
#include "tests/netns/crew_fixture.h"
#include "tests/support/hostile.h"

namespace sockbroker::hands {
namespace {

// Registers until it is told to stop, on a connection that it makes anew where it has to. What it is told besides
// "done" is "lost" or the end: never nothing.
pid_t insistent(const MiniCore& core, int go, const std::string& text) {
        return spawn(kHonest, {go}, [&core, go, text] {
                const auto socket = test::listener();
                OwnedFd connection;
                pollfd ended{go, POLLIN, 0};
                int done = 0;
                while (poll(&ended, 1, 0) == 0) {
                        if (!connection) {
                                connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        }
                        pollfd answer{connection.get(), POLLIN, 0};
                        if (send_record(connection.get(), text, {socket.get()}) && poll(&answer, 1, 20'000) != 1) {
                                dprintf(2, "no answer in 20 s\n");
                                return 1;
                        }
                        if (next_record(connection.get()) == "done") {
                                done++;
                        } else {
                                connection.reset();
                        }
                }
                return done > 0 ? 0 : 2;
        });
}

// recv(2) leaves errno alone at the end, whatever a call before has left there.
TEST(Hand, EndsWithTheCoreAlthoughItsLastCallWasInterrupted) {
        const pid_t hand = spawn(kHonest, {}, [] {
                int orders[2];
                test::must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, orders), "socketpair");
                test::must(dup2(orders[0], kOrders + 100), "dup2");
                close_range(kAnswers, kOrders + 99, 0);
                test::must(dup2(kOrders + 100, kOrders), "dup2");
                const ClosedByDoor closed;
                errno = EINTR;
                run_hand({.role = Role::kDisposal}, closed);
                return 0;
        });
        const auto pidfd = test::made(static_cast<int>(syscall(SYS_pidfd_open, hand, 0)), "pidfd_open");
        pollfd ended{pidfd.get(), POLLIN, 0};
        EXPECT_EQ(poll(&ended, 1, 20'000), 1) << "it reads the end again and again";
        kill(hand, SIGKILL);
        int status = -1;
        ASSERT_EQ(waitpid(hand, &status, 0), hand);
        EXPECT_EQ(status, 0);
}

class Killed : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Processes, Killed, testing::Values("sb-intake", "sb-disposal", "sb-door", "sb-holder"));

TEST_P(Killed, AgainAndAgainUnderLoad) {
        MiniCore core;
        int go[2];
        test::must(pipe2(go, O_CLOEXEC), "pipe");
        std::vector<pid_t> peers;
        for (const char* text : {"admit", "x", "hold web"}) {
                peers.push_back(insistent(core, go[0], text));
        }
        close(go[0]);
        ASSERT_TRUE(core.run_until([&] { return !core.hands("sb-holder").empty() && core.connections() == 3; }));
        for (int i = 0; i < 20; i++) {
                ASSERT_TRUE(core.run_until([&] { return !core.hands(GetParam()).empty(); })) << i;
                ASSERT_TRUE(core.kill_one(GetParam())) << i;
        }
        ASSERT_TRUE(core.run_until([&] { return !core.hands(GetParam()).empty(); }));
        // Who asks now is answered.
        for (const char* text : {"admit", "x", "hold web"}) {
                const pid_t peer = spawn(61002, {}, [&] {
                        const auto socket = test::listener();
                        const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        return ask(connection.get(), text, {socket.get()}) == "done" ? 0 : 1;
                });
                EXPECT_EQ(core.run_while(peer), 0) << text;
        }
        close(go[1]);
        for (const pid_t peer : peers) {
                EXPECT_EQ(core.run_while(peer), 0);
        }
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 0 && core.crew().left_behind() == 0; }));
        EXPECT_FALSE(core.zygote_died);
}

TEST(Crew, ItIsSaidWhatALostHolderKept) {
        MiniCore core;
        std::vector<OwnedFd> sockets;
        sockets.push_back(test::listener());
        const auto cookie = cookie_of(sockets[0].get());
        bool adopted = false;
        core.crew().adopt("web", {cookie}, std::move(sockets), {}, [&](const Taken&) { adopted = true; });
        ASSERT_TRUE(core.run_until([&] { return adopted; }));
        ASSERT_TRUE(core.kill_one("sb-holder"));
        EXPECT_TRUE(core.run_until([&] { return core.lost["web"] == std::vector{cookie}; }));
        EXPECT_TRUE(core.crew().kept("web").empty());
}

// Else the manager would be the last to close what its owner has made hang.
TEST(Crew, AHolderThatHangsIsKilledWhenTheManagerHasForgottenWhatItKept) {
        MiniCore core({.hands = 2, .with_manager = true});
        auto hanging = test::lingering();
        std::vector<OwnedFd> sockets;
        sockets.push_back(test::listener());
        sockets.emplace_back(hanging.socket);
        const auto cookie = cookie_of(sockets[0].get());
        bool adopted = false;
        core.crew().adopt("web", {cookie, 7}, std::move(sockets), {}, [&](const Taken&) { adopted = true; });
        ASSERT_TRUE(core.run_until([&] { return adopted; }));
        core.on_lost = [&](const std::string& key, const std::vector<std::uint64_t>& cookies) {
                for (const auto one : cookies) {
                        core.crew().release(key, one, "name");
                }
        };
        const pid_t holder = core.hands("sb-holder").at(0).pid;
        const auto is_there = [&] {
                return std::ranges::any_of(core.hands("sb-holder"),
                                           [&](const Process& one) { return one.pid == holder && one.state != 'Z'; });
        };
        core.crew().release("web", 7);
        EXPECT_EQ(core.next_to_manager().text, "FDSTOREREMOVE=1\nFDNAME=name");
        EXPECT_EQ(core.lost["web"], std::vector{cookie});
        auto barrier = core.next_to_manager();
        EXPECT_EQ(barrier.text, "BARRIER=1");
        EXPECT_FALSE(core.run_until([&] { return !is_there(); }, 1));
        barrier.fds.clear();
        EXPECT_TRUE(core.run_until([&] { return !is_there(); }));
        EXPECT_TRUE(core.run_until([&] { return core.crew().left_behind() == 0; }));
}

TEST(Crew, WithoutItsZygoteTheCoreHasToEnd) {
        MiniCore core;
        ASSERT_TRUE(core.kill_one("sb-zygote"));
        EXPECT_TRUE(core.run_until([&] { return core.zygote_died; }));
}

// With a process that says when it has come so far, and goes on or ends when it is told to.
class Talk {
public:
        Talk() {
                int ends[2];
                test::must(pipe2(ends, O_CLOEXEC), "pipe");
                hears_.reset(ends[0]);
                says_.reset(ends[1]);
                test::must(pipe2(ends, O_CLOEXEC), "pipe");
                told_.reset(ends[0]);
                tells_.reset(ends[1]);
        }

        // Of the process.
        [[nodiscard]] std::vector<int> ends() const { return {says_.get(), told_.get()}; }
        void say() const { (void)!write(says_.get(), "r", 1); }
        void wait_to_be_told() const {
                char byte = 0;
                (void)!read(told_.get(), &byte, 1);
        }

        // Of the test.
        [[nodiscard]] bool has_said() const {
                pollfd polled{hears_.get(), POLLIN, 0};
                return poll(&polled, 1, 0) == 1;
        }
        [[nodiscard]] bool wait_for_word() const {
                char byte = 0;
                return read(hears_.get(), &byte, 1) == 1;
        }
        void tell() const { (void)!write(tells_.get(), "g", 1); }
        void end() { tells_.reset(); }

private:
        OwnedFd hears_;
        OwnedFd says_;
        OwnedFd told_;
        OwnedFd tells_;
};

// A process of a peer that connects, does `act(connection, pipe)` with a pipe that nobody can close in time and of
// which it keeps a copy, says so, and ends when it is told to.
template <class Act>
pid_t spawn_stuck(const MiniCore& core, const Talk& talk, const Act& act) {
        return spawn(0, talk.ends(), [&core, &act, &talk] {
                const test::SilentFile silent(kHonest);
                void* const page = silent.page();
                test::must(setresuid(kHonest, kHonest, kHonest), "setresuid");
                prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
                const int pipe = test::stuck_pipe(page);
                const int one = unix_socket(core.control_path(), SOCK_SEQPACKET, false).release();
                if (!act(one, pipe)) {
                        return 1;
                }
                talk.say();
                talk.wait_to_be_told();
                silent.end();
                return 0;
        });
}

// Leaves it in its connection.
pid_t spawn_stuck_connection(const MiniCore& core, const Talk& talk) {
        return spawn_stuck(core, talk, [](int connection, int pipe) {
                (void)send_record(connection, "x", {pipe});
                close(pipe);  // not the last one
                return true;
        });
}

// Says that it has been answered, and leaves it in its connection when it is told to.
pid_t spawn_stuck_sender(const MiniCore& core, const Talk& talk) {
        return spawn_stuck(core, talk, [&talk](int connection, int pipe) {
                if (ask(connection, "hello") != "done") {
                        return false;
                }
                talk.say();
                talk.wait_to_be_told();
                // An empty record ends the connection, and what follows it is read by nobody.
                iovec nothing{};
                const msghdr header{.msg_iov = &nothing, .msg_iovlen = 1};
                test::must(static_cast<int>(sendmsg(connection, &header, 0)), "send");
                (void)send_record(connection, "x", {pipe});
                close(pipe);  // not the last one: the core waits for what is written next
                return true;
        });
}

// The core's copy is the last, and what lies in it may be hostile. `heard`: of the door's end, before that is sent.
void close_connections_of_dead_door(bool heard) {
        MiniCore core;
        Talk talk;
        const pid_t hostile = spawn_stuck_sender(core, talk);
        ASSERT_TRUE(core.run_until([&] { return talk.has_said(); }));
        ASSERT_TRUE(talk.wait_for_word());
        ASSERT_EQ(core.connections(), 1U);
        if (heard) {
                ASSERT_TRUE(core.kill_one("sb-door"));
                ASSERT_TRUE(core.run_until([&] { return !core.hands("sb-door").empty(); })) << "there is a new one";
        } else {
                const auto doors = core.hands("sb-door");
                ASSERT_EQ(doors.size(), 1U);
                kill(doors[0].pid, SIGKILL);
                const auto end = steady_usec() + 20'000'000;
                while (!core.hands("sb-door").empty() && steady_usec() < end) {
                        usleep(1000);
                }
                ASSERT_TRUE(core.hands("sb-door").empty());
        }
        talk.tell();
        ASSERT_TRUE(talk.wait_for_word());  // now it lies there
        core.end_connections();
        EXPECT_TRUE(core.run_until([&] { return core.most_left_behind == 1; })) << "a hand closes it";
        talk.end();
        EXPECT_EQ(core.run_while(hostile), 0);
        EXPECT_TRUE(core.run_until([&] { return core.crew().left_behind() == 0; }));
}

TEST(Crew, ConnectionsOfADeadDoorAreClosedByAHand) {
        close_connections_of_dead_door(true);
}

// The loop may come to a connection before it comes to the end of the door.
TEST(Crew, ConnectionsOfADoorWhoseDeathIsNotHeardOfAreClosedByAHand) {
        close_connections_of_dead_door(false);
}

// Its socket says once that orders were not read (ECONNRESET), before it says what the door had sent.
TEST(Crew, AConnectionThatADoorHadBroughtBeforeItDiedIsClosedByAHand) {
        MiniCore core;
        const auto plain = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
        ASSERT_TRUE(core.run_until([&] { return core.connections() == 1; }));
        Talk talk;
        const pid_t hostile = spawn_stuck_connection(core, talk);
        ASSERT_TRUE(talk.wait_for_word());
        const auto doors = core.hands("sb-door");
        ASSERT_EQ(doors.size(), 1U);
        const auto wait_for = [&](char state) {
                while (core.hands("sb-door").at(0).state != state) {
                        usleep(1000);
                }
        };
        wait_for('S');  // it has brought the connection
        kill(doors[0].pid, SIGSTOP);
        wait_for('T');
        core.end_connections();
        sd_event_run(core.event(), 0);  // the order to close it, which comes before what the door has sent
        ASSERT_EQ(core.connections(), 0U);
        kill(doors[0].pid, SIGKILL);
        while (!core.hands("sb-door").empty()) {
                usleep(1000);
        }
        EXPECT_TRUE(core.run_until([&] { return core.most_left_behind == 1; })) << "a hand has taken what lies there";
        talk.end();
        EXPECT_EQ(core.run_while(hostile), 0);
        EXPECT_TRUE(core.run_until([&] { return core.crew().left_behind() == 0; }));
}

// However long its end takes, for its connections may hold what sleeps.
TEST(Crew, ADoorThatWasKilledIsReplacedAtOnce) {
        MiniCore core;
        Talk talk;
        const pid_t hostile = spawn_stuck_connection(core, talk);
        ASSERT_TRUE(talk.wait_for_word());
        // The core has not been told of the connection: the door's copy is the only one.
        pid_t door = 0;
        for (int i = 0; door == 0 && i < 1000; i++) {
                const auto doors = core.hands("sb-door");
                door = doors.empty() ? 0 : doors[0].pid;
                usleep(1000);
        }
        ASSERT_NE(door, 0);
        kill(door, SIGKILL);
        const pid_t peer = spawn(61002, {}, [&] {
                const auto socket = test::listener();
                for (int i = 0; i < 100; i++) {
                        const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                        if (ask(connection.get(), "admit", {socket.get()}) == "done") {
                                return 0;
                        }
                }
                return 1;
        });
        EXPECT_EQ(core.run_while(peer, 20), 0);
        talk.end();
        EXPECT_EQ(core.run_while(hostile), 0);
        EXPECT_TRUE(core.run_until([&] { return core.hands("sb-door").size() == 1; }));
}

TEST(Crew, AllEndWithTheCoreHoweverItEnds) {
        int ready[2];
        test::must(pipe2(ready, O_CLOEXEC), "pipe");
        const pid_t core = fork();
        if (core == 0) {
                MiniCore mine;
                mine.remove_files();  // nobody else will
                std::vector<OwnedFd> sockets;
                sockets.push_back(test::listener());
                bool adopted = false;
                mine.crew().adopt("web", {1}, std::move(sockets), {}, [&](const Taken&) { adopted = true; });
                (void)mine.run_until([&] { return adopted && mine.hands("sb-door").size() == 1; });
                std::vector<pid_t> all{mine.zygote_pid()};
                for (const auto& one : children_of(mine.zygote_pid())) {
                        all.push_back(one.pid);
                }
                (void)!write(ready[1], all.data(), all.size() * sizeof all[0]);
                (void)mine.run_until([] { return false; }, 60);
                _exit(1);
        }
        close(ready[1]);
        std::array<pid_t, 64> pids{};
        const ssize_t size = read(ready[0], pids.data(), sizeof pids);
        close(ready[0]);
        const std::vector<pid_t> all(pids.begin(), pids.begin() + size / static_cast<ssize_t>(sizeof pids[0]));
        ASSERT_GE(all.size(), 7U);
        kill(core, SIGKILL);
        waitpid(core, nullptr, 0);
        const auto end = steady_usec() + 20'000'000;
        const auto alive = [&] {
                return std::ranges::count_if(all, [](pid_t pid) {
                        std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
                        std::string line;
                        return std::getline(file, line) && line.find(") Z ") == std::string::npos;
                });
        };
        while (alive() != 0 && steady_usec() < end) {
                usleep(1000);
        }
        EXPECT_EQ(alive(), 0);
}

}  // namespace
}  // namespace sockbroker::hands
