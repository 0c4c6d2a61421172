// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Real descriptors that make who touches them sleep, beside honest peers: the core never sleeps, and those wait for
// nobody.
#include <poll.h>

#include <fstream>
#include <thread>

#include "tests/netns/crew_fixture.h"
#include "tests/support/hostile.h"

namespace sockbroker::hands {
namespace {

// Hands come to know in 200 ms that they are left behind; an honest peer waits for none of those.
constexpr std::int64_t kSlowestUsec = 150'000;
// A core that waited for something of a peer would do so for seconds.
constexpr std::int64_t kSlowestTurnUsec = 500'000;

// A process that attacks and says so, and ends when it is told.
class Attack {
public:
        // `body` is called as root, does its harm, and returns what is to be done at the end.
        Attack(const MiniCore& core,
               const std::function<std::function<void()>(const std::string& control, const std::string& notify)>&
                       body) {
                int ready[2];
                int go[2];
                test::must(pipe2(ready, O_CLOEXEC), "pipe");
                test::must(pipe2(go, O_CLOEXEC), "pipe");
                pid_ = spawn(0, {ready[1], go[0]}, [&] {
                        const auto end = body(core.control_path(), core.notify_path());
                        (void)!write(ready[1], "r", 1);
                        char byte = 0;
                        (void)!read(go[0], &byte, 1);
                        end();
                        return 0;
                });
                close(ready[1]);
                close(go[0]);
                ready_.reset(ready[0]);
                go_.reset(go[1]);
        }
        // Without the loop: what was sent lies in the queues, and its sender has closed its own.
        [[nodiscard]] bool wait_until_ready() const {
                pollfd polled{ready_.get(), POLLIN, 0};
                char byte = 0;
                return poll(&polled, 1, 60'000) == 1 && read(ready_.get(), &byte, 1) == 1;
        }
        void end() { go_.reset(); }
        [[nodiscard]] pid_t pid() const { return pid_; }

private:
        pid_t pid_ = -1;
        OwnedFd ready_;
        OwnedFd go_;
};

void become_hostile() {
        test::must(setresgid(kHostile, kHostile, kHostile), "setresgid");
        test::must(setresuid(kHostile, kHostile, kHostile), "setresuid");
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // as any process that did not start as root
}

// For how long the calling thread was ready to run so far, and others had the processors.
std::int64_t ready_usec() {
        std::ifstream file("/proc/thread-self/schedstat");
        std::int64_t running = 0, ready = 0;
        file >> running >> ready;
        return ready / 1000;
}

// Registers on and on; the slowest of its answers comes through the pipe.
struct Slowest {
        std::int64_t usec = 0;
        int count = 0;
};
pid_t honest(const MiniCore& core, int result, int count) {
        return spawn(kHonest, {result}, [&, result, count] {
                const auto socket = test::listener();
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                Slowest slowest;
                for (; slowest.count < count; slowest.count++) {
                        const auto began = steady_usec() - ready_usec();
                        const auto answer = ask(connection.get(), "admit", {socket.get()});
                        const auto ended = steady_usec() - ready_usec();
                        if (answer != "done") {
                                dprintf(2, "an honest peer is told: %s\n", answer.c_str());
                                return 1;
                        }
                        slowest.usec = std::max(slowest.usec, ended - began);
                        usleep(2000);
                }
                (void)!write(result, &slowest, sizeof slowest);
                return 0;
        });
}

class CrewUnderAttack : public testing::Test {
protected:
        // While the attack lasts; and everything of it is gone afterwards.
        void survive(Attack& attack, std::size_t at_least_left_behind) {
                ASSERT_TRUE(attack.wait_until_ready());
                core_.slowest_turn = 0;
                int result[2];
                test::must(pipe2(result, O_CLOEXEC), "pipe");
                EXPECT_EQ(core_.run_while(honest(core_, result[1], 200)), 0);
                Slowest slowest;
                ASSERT_EQ(read(result[0], &slowest, sizeof slowest), static_cast<ssize_t>(sizeof slowest));
                close(result[0]);
                close(result[1]);
                // How late a turn of the loop was says how busy others keep the processors: an answer takes several.
                EXPECT_LT(core_.slowest_turn, kSlowestTurnUsec);
                EXPECT_LT(slowest.usec, kSlowestUsec + 4 * core_.slowest_turn);
                std::printf("slowest honest answer %.1f ms, slowest turn %.1f ms, left behind %zu\n",
                            static_cast<double>(slowest.usec) / 1000, static_cast<double>(core_.slowest_turn) / 1000,
                            core_.most_left_behind);
                EXPECT_TRUE(core_.run_until([&] { return core_.most_left_behind >= at_least_left_behind; }));
                attack.end();
                EXPECT_TRUE(core_.run_until([&] { return core_.crew().left_behind() == 0; }, 10))
                        << core_.crew().left_behind() << " hands are still there 10 s after the end of the attack";
                EXPECT_EQ(core_.run_while(attack.pid()), 0);
                EXPECT_TRUE(core_.run_until([&] { return core_.connections() == 0; }));
                EXPECT_TRUE(core_.run_until([&] {
                        return core_.hands("sb-intake").size() == 2 && core_.hands("sb-disposal").size() == 2;
                }));
        }

        MiniCore core_;
};

// One message that is refused, and one of somebody who may register.
void send_both_ways(const std::string& control, const std::vector<int>& fds, const std::string& other = "x") {
        for (const std::string& text : {std::string("admit"), other}) {
                const int connection = unix_socket(control, SOCK_SEQPACKET, false).release();
                const auto sent = send_record(connection, text, fds);
                test::must(sent ? 0 : -1, "send");
        }
}

TEST_F(CrewUnderAttack, PipesWhoseMutexIsKept) {
        Attack attack(core_, [](const std::string& control, const std::string&) {
                const test::SilentFile silent(kHostile);
                void* const page = silent.page();
                become_hostile();
                for (int i = 0; i < 2; i++) {
                        const int pipe = test::stuck_pipe(page);
                        const int connection = unix_socket(control, SOCK_SEQPACKET, false).release();
                        const auto sent = send_record(connection, i == 0 ? "admit" : "x", {pipe});
                        test::must(sent ? 0 : -1, "send");
                        close(pipe);
                }
                return [silent] { silent.end(); };
        });
        survive(attack, 2);
}

TEST_F(CrewUnderAttack, FilesOfAServerThatDoesNotAnswerFlush) {
        Attack attack(core_, [](const std::string& control, const std::string&) {
                const test::SilentFile silent(kHostile, false);
                become_hostile();
                send_both_ways(control, {silent.file()});
                return [silent] { silent.end(); };
        });
        survive(attack, 2);
}

TEST_F(CrewUnderAttack, UdpSocketsWhoseLockIsKept) {
        Attack attack(core_, [](const std::string& control, const std::string&) {
                const test::SilentFile silent(kHostile);
                void* const page = silent.page();
                become_hostile();
                send_both_ways(control, {test::stuck_udp(page)});
                return [silent] { silent.end(); };
        });
        survive(attack, 1);  // nothing is asked of what is refused
}

TEST_F(CrewUnderAttack, ConnectionsThatLingerWithinUnixSockets) {
        Attack attack(core_, [](const std::string& control, const std::string&) {
                become_hostile();
                auto kept = std::make_shared<std::vector<test::Lingering>>();
                // Whoever closes last waits, and now and then that is the sender: so some more, each closed by a
                // thread.
                for (int i = 0; i < 24; i++) {
                        kept->push_back(test::lingering());
                        const int connection = unix_socket(control, SOCK_SEQPACKET, false).release();
                        const auto sent = send_record(connection, i % 2 == 0 ? "admit" : "x", {kept->back().socket});
                        test::must(sent ? 0 : -1, "send");
                        std::thread([fd = kept->back().socket] { close(fd); }).detach();
                }
                return [kept] {};
        });
        survive(attack, 2);
}

TEST_F(CrewUnderAttack, ListenersWithThousandsOfConnectionsThatNobodyAccepted) {
        Attack attack(core_, [](const std::string& control, const std::string&) {
                become_hostile();
                std::vector<int> fds;
                for (int i = 0; i < 16; i++) {
                        fds.push_back(test::crowded_listener(4096).release());
                }
                const int connection = unix_socket(control, SOCK_SEQPACKET, false).release();
                const auto sent = send_record(connection, "x", fds);
                test::must(sent ? 0 : -1, "send");
                for (const int fd : fds) {
                        close(fd);
                }
                return [] {};
        });
        survive(attack, 0);
}

}  // namespace
}  // namespace sockbroker::hands
