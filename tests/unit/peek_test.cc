// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the deciding process sees of a message, and that no descriptor of a stranger's ever enters its table. After each
// step the process has as many open descriptors as before.
#include "broker/protocol/peek.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <gtest/gtest.h>

#include "broker/protocol/request.h"
#include "broker/protocol/socket_options.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/open_fds.h"
#include "tests/unit/support/prepared_pair.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

struct Pair : test::PreparedPair {
        explicit Pair(int type) : PreparedPair(type, prepare_for_peeking) {}
};

class Peek : public testing::TestWithParam<int> {
protected:
        void send(const std::string& text, std::size_t fds = 0) {
                const std::vector<int> numbers(fds, pipe_[0].get());
                const auto sent = send_record(pair_.peer.get(), text, numbers);
                ASSERT_TRUE(sent) << sent.error().text();
        }

        const Pair pair_{GetParam()};
        const std::vector<OwnedFd> pipe_ = test::make_kind("pipe");
};

INSTANTIATE_TEST_SUITE_P(Kinds, Peek, testing::Values(SOCK_SEQPACKET, SOCK_DGRAM));

TEST_P(Peek, NoDescriptorEntersHoweverManyCame) {
        for (const std::size_t count : {1U, 2U, 3U, 8U, 253U}) {
                const Pair pair(GetParam());
                ASSERT_TRUE(send_record(pair.peer.get(), "FDSTORE=1", std::vector<int>(count, pipe_[0].get())));
                const auto before = test::open_fds();
                for (int i = 0; i < 3; i++) {
                        const auto message = peek(pair.broker.get());
                        ASSERT_TRUE(message) << message.error().text();
                        EXPECT_TRUE(message->has_fds);
                        EXPECT_FALSE(message->truncated);
                        EXPECT_EQ(message->text, "FDSTORE=1");
                        ASSERT_TRUE(message->credentials);
                        EXPECT_EQ(message->credentials->pid, getpid());
                        EXPECT_NE(message->sent_usec, 0);
                        EXPECT_EQ(test::open_fds(), before) << count;
                }
        }
}

TEST_P(Peek, EvenWhereTheSocketWasSetUpToPassPidfdsAndLabels) {
        const int on = 1;
        (void)setsockopt(pair_.broker.get(), SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on);
        (void)setsockopt(pair_.broker.get(), SOL_SOCKET, SO_PASSSEC, &on, sizeof on);
        ASSERT_TRUE(prepare_for_peeking(pair_.broker.get()));
        send("FDSTORE=1", 3);
        const auto before = test::open_fds();
        const auto message = peek(pair_.broker.get());
        ASSERT_TRUE(message) << message.error().text();
        EXPECT_TRUE(message->has_fds);
        EXPECT_EQ(test::open_fds(), before);
}

TEST_P(Peek, AMessageWithoutDescriptorsIsTakenOffTheQueueWithItsPidfd) {
        send("VERB=list");
        send("VERB=status");
        auto message = peek(pair_.broker.get());
        ASSERT_TRUE(message) << message.error().text();
        EXPECT_FALSE(message->has_fds);
        ASSERT_TRUE(consume(pair_.broker.get(), *message));
        EXPECT_EQ(message->text, "VERB=list");
        int off = 0;
        socklen_t size = sizeof off;
        if (getsockopt(pair_.broker.get(), SOL_SOCKET, SO_PASSPIDFD, &off, &size) == 0) {  // 6.5
                EXPECT_TRUE(message->pidfd);
                EXPECT_EQ(off, 0) << "and the next peek has exact room again";
        }
        EXPECT_EQ(peek(pair_.broker.get())->text, "VERB=status");
}

TEST_P(Peek, LongTextIsTruncatedAndStaysOneMessage) {
        send(std::string(kMaxMessageBytes + 1, 'x'));
        send("VERB=list");
        auto message = peek(pair_.broker.get());
        ASSERT_TRUE(message) << message.error().text();
        EXPECT_TRUE(message->truncated);
        EXPECT_TRUE(message->text.empty());
        ASSERT_TRUE(consume(pair_.broker.get(), *message));
        EXPECT_EQ(peek(pair_.broker.get())->text, "VERB=list");
}

TEST(PeekOnConnections, AnEmptyQueueIsNoMessageAndTheEndIsAnEmptyOne) {
        Pair pair(SOCK_SEQPACKET);
        const auto nothing = peek(pair.broker.get());
        ASSERT_FALSE(nothing);
        EXPECT_EQ(nothing.error().errnum, EAGAIN);
        pair.peer.reset();
        const auto end = peek(pair.broker.get());
        ASSERT_TRUE(end) << end.error().text();
        EXPECT_TRUE(end->text.empty());
        EXPECT_FALSE(end->has_fds);
}

// A pair is connected by its maker, so by this process.
TEST(PeekOnConnections, TheSenderIsPinnedWhereItIsTheOneThatConnected) {
        const Pair pair(SOCK_SEQPACKET);
        int pidfd = -1;
        socklen_t size = sizeof pidfd;
        if (getsockopt(pair.broker.get(), SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) != 0) {
                GTEST_SKIP() << "kernel before 6.5 has no SO_PEERPIDFD";
        }
        OwnedFd(pidfd).reset();
        ASSERT_TRUE(send_record(pair.peer.get(), "FDSTORE=1"));
        auto message = peek(pair.broker.get());
        ASSERT_TRUE(message);
        pin_sender(pair.broker.get(), *message);
        EXPECT_TRUE(message->pidfd);
        ASSERT_TRUE(consume(pair.broker.get(), *message));

        const pid_t child = fork();
        if (child == 0) {
                _exit(send_record(pair.peer.get(), "FDSTORE=1") ? 0 : 1);
        }
        int status = -1;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0);
        message = peek(pair.broker.get());
        ASSERT_TRUE(message);
        EXPECT_EQ(message->credentials->pid, child);
        pin_sender(pair.broker.get(), *message);
        EXPECT_FALSE(message->pidfd) << "the message is of another process than the one that connected";
}

}  // namespace
}  // namespace sockbroker
