// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A pid that is taken by another process: of a message's sender, and of one that wrote before its connection was
// accepted. A number lends nobody a unit.
#include <linux/sched.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include <csignal>
#include <cstring>

#include <gtest/gtest.h>

#include "broker/hands/queue_state.h"
#include "broker/protocol/peek.h"
#include "tests/unit/support/peer_fixture.h"

namespace sockbroker {
namespace {

INSTANTIATE_TEST_SUITE_P(Kernels, PeerTest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "WithPidfd" : "WithoutPidfd"; });

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

}  // namespace
}  // namespace sockbroker
