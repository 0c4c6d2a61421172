// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Real senders: children with other uids, in units that are real cgroups, that die, and whose pid is taken by another.
// Each case runs with the pidfd that the kernel gave and without it, as on a kernel before 6.5.
#include "broker/peer/peer.h"

#include "broker/hands/queue_state.h"
#include "broker/peer/on_behalf.h"
#include "broker/protocol/peek.h"

#include <linux/sched.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include <fstream>

#include <gtest/gtest.h>

#include "tests/unit/support/child.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

constexpr uid_t kServiceUid = 61001;

// A unit as sd_pid_get_unit() sees one: a cgroup below a slice, in the hierarchy that systemd uses.
class Unit {
public:
        explicit Unit(std::string name, const Unit* parent = nullptr, const std::string& slice = "/system.slice")
                : name_(std::move(name)), slice_((parent != nullptr ? parent->path() : root()) + slice) {
                do {  // another run of this test may take the slice away between the two
                        made_slice_ = mkdir(slice_.c_str(), 0755) == 0 || made_slice_;
                        errno = 0;
                } while (mkdir(path().c_str(), 0755) < 0 && errno == ENOENT &&
                         access(parent_path().c_str(), F_OK) == 0);
                if (errno != 0 && errno != EEXIST) {
                        throw std::runtime_error("cannot make " + path() + ": " + std::strerror(errno));
                }
        }
        Unit(const Unit&) = delete;
        Unit& operator=(const Unit&) = delete;
        ~Unit() {
                rmdir(path().c_str());
                if (made_slice_) {
                        rmdir(slice_.c_str());
                }
        }

        static std::string root() {
                struct statfs facts {};
                const bool unified = statfs("/sys/fs/cgroup", &facts) == 0 && facts.f_type == 0x63677270;
                return unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
        }

        [[nodiscard]] const std::string& name() const { return name_; }
        [[nodiscard]] std::string parent_path() const { return slice_.substr(0, slice_.rfind('/')); }
        [[nodiscard]] std::string path() const { return slice_ + "/" + name_; }

        // Moves the caller into it.
        [[nodiscard]] bool enter() const {
                std::ofstream file(path() + "/cgroup.procs");
                file << "0" << std::flush;
                return file.good();
        }

private:
        std::string name_;
        std::string slice_;
        bool made_slice_ = false;
};

std::string unit_name() {
        return "sockbroker-test-" + std::to_string(getpid()) + ".service";
}

class PeerTest : public testing::TestWithParam<bool> {
protected:
        void SetUp() override {
                if (geteuid() != 0 || access((Unit::root() + "/cgroup.procs").c_str(), W_OK) < 0) {
                        GTEST_SKIP() << "needs root and a writable cgroup2 hierarchy";
                }
                int fds[2];
                test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
                broker_.reset(fds[0]);
                peer_.reset(fds[1]);
                ASSERT_TRUE(prepare_receiver(broker_.get()));
                int pipe_fds[2];
                test::must(pipe2(pipe_fds, O_CLOEXEC), "pipe");
                release_read_.reset(pipe_fds[0]);
                release_write_.reset(pipe_fds[1]);
        }

        // What a child does: enter the unit, take the uid, send; then live until finish().
        int send_and_wait(const Unit* unit, uid_t uid = kServiceUid, uid_t then = kServiceUid) {
                release_write_.reset();
                if ((unit != nullptr && !unit->enter()) || setresuid(uid, uid, uid == then ? uid : 0) < 0 ||
                    !send_record(peer_.get(), "READY=1")) {
                        return 1;
                }
                if (then != uid && (setresuid(0, 0, 0) < 0 || setresuid(then, then, then) < 0 ||
                                    !send_record(peer_.get(), "changed"))) {
                        return 1;
                }
                char byte = 0;
                return static_cast<int>(read(release_read_.get(), &byte, 1));
        }

        Message next() {
                pollfd ready{.fd = broker_.get(), .events = POLLIN, .revents = 0};
                EXPECT_EQ(poll(&ready, 1, 10'000), 1) << "no message came";
                auto message = receive(broker_.get());
                EXPECT_TRUE(message) << message.error().text();
                if (!GetParam()) {
                        message->pidfd.reset();
                        message->sender_gone = false;
                }
                return std::move(*message);
        }

        void finish(test::Child& child) {
                release_write_.reset();
                EXPECT_EQ(child.wait(), 0);
        }

        OwnedFd broker_;
        OwnedFd peer_;
        OwnedFd release_read_;
        OwnedFd release_write_;
};

INSTANTIATE_TEST_SUITE_P(Kernels, PeerTest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "WithPidfd" : "WithoutPidfd"; });

TEST_P(PeerTest, ALivingSenderHasItsUnitAndIds) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        const auto peer = identify(next());
        ASSERT_TRUE(peer) << peer.error().message;
        EXPECT_EQ(peer->pid, child.pid());
        EXPECT_EQ(peer->uid, kServiceUid);
        EXPECT_EQ(peer->unit, unit.name());
        EXPECT_EQ(peer->to_string(), "pid " + std::to_string(child.pid()) + ", uid 61001, unit " + unit.name());
        finish(child);
}

TEST_P(PeerTest, ASenderOutsideUnitsHasNone) {
        test::Child child([&] { return send_and_wait(nullptr); });
        const auto peer = identify(next());
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->unit, "");
        EXPECT_EQ(peer->to_string(), "pid " + std::to_string(child.pid()) + ", uid 61001, no unit");
        finish(child);
}

TEST_P(PeerTest, OneMaySpeakForAnotherOfItsOwnUnitAndUserAndRootForAnyUserOfItsUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        const auto program = identify(next());
        ASSERT_TRUE(program);
        const auto spoken_for = [&](uid_t uid, gid_t gid, const std::string& of) {
                return on_behalf_of({.pid = getpid(), .uid = uid, .gid = gid, .unit = of}, child.pid());
        };
        const auto same = spoken_for(program->uid, program->gid, unit.name());
        ASSERT_TRUE(same) << same.error().message;
        EXPECT_EQ(same->to_string(), program->to_string());
        EXPECT_TRUE(spoken_for(0, 0, unit.name()));
        for (const auto& refused : {spoken_for(program->uid, program->gid, "other.service"),
                                    spoken_for(program->uid, program->gid, ""), spoken_for(0, 0, "other.service"),
                                    spoken_for(0, 0, ""), spoken_for(program->uid + 1, program->gid, unit.name()),
                                    spoken_for(program->uid, program->gid + 1, unit.name())}) {
                ASSERT_FALSE(refused);
                EXPECT_EQ(refused.error().code, ResultCode::kNotPermitted);
        }
        finish(child);
        EXPECT_FALSE(spoken_for(program->uid, program->gid, unit.name()));  // it is gone
}

// What a service with Delegate=yes or a user's manager can make below its own cgroup.
TEST_P(PeerTest, AUnitForgedBelowADelegatedOneCountsAsTheOutermost) {
        const Unit outer(unit_name());
        const Unit forged("resolver.service", &outer);
        test::Child child([&] { return send_and_wait(&forged); });
        EXPECT_EQ(identify(next())->unit, outer.name());
        finish(child);
}

TEST_P(PeerTest, AUnitOfAUserManagerCountsAsTheManagers) {
        const Unit manager("user@" + std::to_string(getpid()) + ".service");  // other runs of this test have theirs
        const Unit forged("resolver.service", &manager, "/app.slice");
        test::Child child([&] { return send_and_wait(&forged); });
        EXPECT_EQ(identify(next())->unit, manager.name());
        finish(child);
}

TEST_P(PeerTest, ASenderThatIsGoneHasNoUnitButKeepsItsUid) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        auto received_early = next();
        const auto pid = child.pid();
        finish(child);
        const auto peer = identify(received_early);
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->pid, pid);
        EXPECT_EQ(peer->uid, kServiceUid);
        EXPECT_EQ(peer->unit, "");
}

TEST_P(PeerTest, ASenderThatWasGoneBeforeReceivingHasNoUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return unit.enter() && send_record(peer_.get(), "READY=1") ? 0 : 1; });
        ASSERT_EQ(child.wait(), 0);
        const auto message = next();
        if (GetParam()) {
                EXPECT_TRUE(message.pidfd.valid() || message.sender_gone);
        }
        const auto peer = identify(message);
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->unit, "");
}

timespec boottime() {
        timespec now{};
        clock_gettime(CLOCK_BOOTTIME, &now);
        return now;
}

// /proc counts starts in ticks of 10 ms: what starts after this has a later one than what happened before.
void await_next_tick() {
        const auto tick = [](const timespec& at) { return at.tv_sec * 100 + at.tv_nsec / 10'000'000; };
        const auto before = tick(boottime());
        while (tick(boottime()) <= before + 1) {
        }
}

// A process with the number of one that has ended.
template <class Body>
pid_t successor_of(pid_t pid, const Body& body) {
        clone_args arguments{};
        arguments.exit_signal = SIGCHLD;
        arguments.set_tid = reinterpret_cast<std::uintptr_t>(&pid);
        arguments.set_tid_size = 1;
        const auto twin = static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
        if (twin == 0) {
                _exit(body());
        }
        EXPECT_EQ(twin, pid) << std::strerror(errno);
        return twin;
}

// The pid of a dead sender, given by the kernel to a process of the very unit and uid that it wants to be taken for.
TEST_P(PeerTest, ATakenOverPidDoesNotLendItsUnit) {
        const Unit unit(unit_name());
        test::Child sender([&] {
                return setresuid(kServiceUid, kServiceUid, kServiceUid) == 0 && send_record(peer_.get(), "READY=1") ? 0
                                                                                                                    : 1;
        });
        const pid_t pid = sender.pid();
        ASSERT_EQ(sender.wait(), 0);
        await_next_tick();
        test::Child successor(successor_of(pid, [&] { return send_and_wait(&unit); }));
        const auto message = next();
        const auto alive = next();  // the successor's own: it is in the unit now
        ASSERT_EQ(message.credentials->pid, alive.credentials->pid);
        EXPECT_EQ(identify(message)->unit, "");
        EXPECT_EQ(identify(alive)->unit, unit.name());
        finish(successor);
}

// A connection as the broker takes it: the door accepts it and looks whether something is in its queue, then the core
// reads.
class EarlyConnection : public PeerTest {
protected:
        void SetUp() override {
                PeerTest::SetUp();
                listener_ = test::made(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
                const sa_family_t family = AF_UNIX;  // the kernel chooses an abstract name
                test::must(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&family), sizeof family), "bind");
                test::must(listen(listener_.get(), 1), "listen");
                size_ = sizeof address_;
                test::must(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address_), &size_), "its name");
                ASSERT_TRUE(prepare_for_peeking(listener_.get()));
        }

        // Of a child: nobody has accepted its connection by then.
        [[nodiscard]] bool connect_and_send() {
                connection_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
                return setresuid(kServiceUid, kServiceUid, kServiceUid) == 0 &&
                       connect(connection_.get(), reinterpret_cast<const sockaddr*>(&address_), size_) == 0 &&
                       send_record(connection_.get(), "first") && send_record(connection_.get(), "second");
        }

        void accept() {
                connection_ = test::made(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept");
                ASSERT_TRUE(prepare_for_peeking(connection_.get()));
                ASSERT_EQ(hands::look_at_queue(connection_.get()), hands::QueueState::kRecord);
        }

        Message next_of_connection(const std::string& text) {
                pollfd ready{.fd = connection_.get(), .events = POLLIN, .revents = 0};
                EXPECT_EQ(poll(&ready, 1, 10'000), 1) << "no message came";
                auto message = peek_sent(connection_.get());
                EXPECT_TRUE(message && consume(connection_.get(), *message));
                EXPECT_EQ(message->text, text);
                if (!GetParam()) {
                        message->pidfd.reset();
                        message->sender_gone = false;
                }
                return std::move(*message);
        }

        OwnedFd connection_;
        OwnedFd listener_;
        sockaddr_un address_{};
        socklen_t size_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Kernels, EarlyConnection, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "WithPidfd" : "WithoutPidfd"; });

TEST_P(EarlyConnection, APidTakenOverAfterItWasAcceptedDoesNotLendItsUnit) {
        const Unit unit(unit_name());
        test::Child sender([&] { return connect_and_send() ? 0 : 1; });
        const pid_t pid = sender.pid();
        ASSERT_EQ(sender.wait(), 0);
        accept();
        await_next_tick();
        test::Child successor(successor_of(pid, [&] { return send_and_wait(&unit); }));
        EXPECT_EQ(identify(next())->unit, unit.name());  // the successor's own message, elsewhere: it is in the unit
        EXPECT_EQ(identify(next_of_connection("first"))->unit, "");
        EXPECT_EQ(identify(next_of_connection("second"))->unit, "");
        finish(successor);
}

TEST_P(EarlyConnection, WithoutAPidfdOnlyTheFirstOfTheMessagesFromBeforeItWasAcceptedHasAUnit) {
        const Unit unit(unit_name());
        test::Child sender([&] {
                release_write_.reset();
                char byte = 0;
                return unit.enter() && connect_and_send() && send_record(peer_.get(), "sent") &&
                                       recv(connection_.get(), &byte, 1, 0) == 1 &&
                                       send_record(connection_.get(), "third")
                               ? static_cast<int>(read(release_read_.get(), &byte, 1))
                               : 1;
        });
        ASSERT_EQ(next().text, "sent");
        accept();
        EXPECT_EQ(identify(next_of_connection("first"))->unit, unit.name());
        EXPECT_EQ(identify(next_of_connection("second"))->unit, GetParam() ? unit.name() : "");
        ASSERT_TRUE(send_record(connection_.get(), "x"));
        EXPECT_EQ(identify(next_of_connection("third"))->unit, unit.name());
        finish(sender);
}

TEST_P(PeerTest, WithoutAPidfdTheUidMustStillFit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit, kServiceUid, kServiceUid + 1); });
        const auto first = next();
        const auto changed = next();
        EXPECT_EQ(first.credentials->uid, kServiceUid);
        EXPECT_EQ(identify(first)->unit, GetParam() ? unit.name() : "");
        EXPECT_EQ(identify(changed)->unit, unit.name());
        finish(child);
}

TEST_P(PeerTest, WithoutAPidfdAMessageOfUnknownOrFutureTimeHasNoUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        auto message = next();
        EXPECT_EQ(identify(message)->unit, unit.name());
        const auto sent = message.sent_usec;
        for (const std::int64_t time : {std::int64_t{0}, sent + 3'600'000'000, sent - 3'600'000'000}) {
                message.sent_usec = time;
                EXPECT_EQ(identify(message)->unit, GetParam() ? unit.name() : "") << time - sent;
        }
        finish(child);
}

// Linux gives such a message pid 0 and the overflow uid.
TEST(Peer, AMessageQueuedBeforeCredentialsWereAskedForIsRefused) {
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(send_record(peer.get(), "READY=1"));
        ASSERT_TRUE(prepare_receiver(broker.get()));
        const auto message = receive(broker.get());
        ASSERT_TRUE(message && message->credentials);
        EXPECT_EQ(message->credentials->pid, 0);
        const auto identified = identify(*message);
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(identified.error().message,
                  "the sender has no pid here: it runs outside the broker's pid namespace, or sent before the socket "
                  "asked "
                  "for credentials (PassCredentials=yes in its unit)");
}

TEST(Peer, AMessageWithoutCredentialsIsRefused) {
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(send_record(peer.get(), "READY=1"));
        const auto message = receive(broker.get());  // never prepared
        ASSERT_TRUE(message);
        ASSERT_FALSE(message->credentials);
        const auto identified = identify(*message);
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(identified.error().message,
                  "the message came without credentials of its sender, so nobody knows who asks; the socket it was "
                  "sent to "
                  "needs SO_PASSCRED (PassCredentials=yes in its unit)");
}

TEST(Peer, TheOverflowUidIsRefused) {
        if (geteuid() != 0) {
                GTEST_SKIP() << "needs root to change uids";
        }
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(prepare_receiver(broker.get()));
        uid_t overflow = 0;
        std::ifstream("/proc/sys/kernel/overflowuid") >> overflow;
        test::Child child([&] {
                return setresuid(overflow, overflow, overflow) == 0 && send_record(peer.get(), "READY=1") ? 0 : 1;
        });
        ASSERT_EQ(child.wait(), 0);
        const auto identified = identify(*receive(broker.get()));
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(
                identified.error().message,
                "uid " + std::to_string(overflow) +
                        " stands for every user unknown in the broker's user namespace and identifies nobody; run the "
                        "service under a uid of its own");
}

}  // namespace
}  // namespace sockbroker
