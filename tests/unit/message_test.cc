// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What arrives over real UNIX sockets, from friendly and hostile senders; after each the process has as many open
// descriptors as before.
#include "broker/protocol/message.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/un.h>

#include <csignal>
#include <random>

#include <gtest/gtest.h>

#include "broker/protocol/request.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/open_fds.h"
#include "tests/unit/support/prepared_pair.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

struct Pair : test::PreparedPair {
        explicit Pair(int type) : PreparedPair(type, prepare_receiver) {}
};

Message received(int fd) {
        auto message = receive(fd);
        EXPECT_TRUE(message) << message.error().text();
        return message ? std::move(*message) : Message{};
}

bool kernel_has_pidfds() {
        const OwnedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const int on = 1;
        return setsockopt(fd.get(), SOL_SOCKET, 76, &on, sizeof on) == 0;
}

std::int64_t now_usec() {
        timespec now{};
        clock_gettime(CLOCK_REALTIME, &now);
        return now.tv_sec * std::int64_t{1'000'000} + now.tv_nsec / 1000;
}

// `count` copies of one pipe end.
struct Descriptors {
        explicit Descriptors(std::size_t count) : pipe(test::make_kind("pipe")) {
                numbers.assign(count, pipe[0].get());
        }

        std::vector<OwnedFd> pipe;
        std::vector<int> numbers;
};

TEST(Message, ComesWithTextDescriptorsCredentialsAndTime) {
        for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
                const Pair pair(type);
                const Descriptors sent(3);
                const auto before = now_usec();
                ASSERT_TRUE(send_record(pair.peer.get(), "FDSTORE=1\n", sent.numbers));
                const auto message = received(pair.broker.get());
                EXPECT_EQ(message.text, "FDSTORE=1\n");
                EXPECT_FALSE(message.truncated);
                ASSERT_EQ(message.fds.size(), 3U);
                for (const auto& fd : message.fds) {
                        EXPECT_EQ(fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
                }
                ASSERT_TRUE(message.credentials);
                EXPECT_EQ(message.credentials->pid, getpid());
                EXPECT_EQ(message.credentials->uid, getuid());
                EXPECT_EQ(message.pidfd.valid(), kernel_has_pidfds());
                EXPECT_GE(message.sent_usec, before);
                EXPECT_LE(message.sent_usec, now_usec());
        }
}

TEST(Message, AnEmptyDatagramIsLegalAndOnSeqpacketMeansTheEnd) {
        const Pair datagram(SOCK_DGRAM);
        ASSERT_EQ(send(datagram.peer.get(), "", 0, 0), 0);
        const auto empty = received(datagram.broker.get());
        EXPECT_TRUE(empty.text.empty() && empty.fds.empty() && !empty.truncated);
        EXPECT_TRUE(empty.credentials);
        EXPECT_EQ(receive(datagram.broker.get()).error().errnum, EAGAIN);

        Pair sequenced(SOCK_SEQPACKET);
        sequenced.peer.reset();
        const auto end = received(sequenced.broker.get());
        EXPECT_TRUE(end.text.empty() && end.fds.empty());
}

TEST(Message, DescriptorsWithoutTextAreOwnedToo) {
        const auto before = test::open_fds();
        {
                const Pair pair(SOCK_DGRAM);
                const Descriptors sent(1);
                alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
                msghdr header{.msg_control = control, .msg_controllen = sizeof control};
                auto* part = CMSG_FIRSTHDR(&header);
                *part = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
                std::memcpy(CMSG_DATA(part), sent.numbers.data(), sizeof(int));
                ASSERT_EQ(sendmsg(pair.peer.get(), &header, 0), 0);
                EXPECT_EQ(received(pair.broker.get()).fds.size(), 1U);
        }
        EXPECT_EQ(test::open_fds(), before);
}

TEST(Message, FourThousandAndNinetySixBytesAndNoMore) {
        for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
                const Pair pair(type);
                const Descriptors sent(253);
                const auto before = test::open_fds();
                const std::string whole(kMaxMessageBytes, 'x');
                ASSERT_TRUE(send_record(pair.peer.get(), whole, sent.numbers));
                {
                        const auto message = received(pair.broker.get());
                        EXPECT_EQ(message.text, whole);
                        EXPECT_EQ(message.fds.size(), 253U) << "with pidfd, credentials and time beside them";
                        EXPECT_FALSE(message.truncated);
                }
                ASSERT_TRUE(send_record(pair.peer.get(), whole + "x", sent.numbers));
                {
                        const auto message = received(pair.broker.get());
                        EXPECT_TRUE(message.truncated);
                        EXPECT_TRUE(message.text.empty());
                        EXPECT_TRUE(message.fds.empty());
                        EXPECT_TRUE(message.credentials) << "whom to blame";
                }
                EXPECT_EQ(test::open_fds(), before);
                ASSERT_TRUE(send_record(pair.peer.get(), "READY=1"));
                EXPECT_EQ(received(pair.broker.get()).text, "READY=1") << "the socket goes on";
        }
}

// With few descriptors left, the kernel delivers what fits and says MSG_CTRUNC.
TEST(Message, RunningOutOfDescriptorsDropsTheMessageAndLeaksNone) {
        const Pair pair(SOCK_DGRAM);
        const Descriptors sent(20);
        const auto before = test::open_fds();
        rlimit old{};
        ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
        for (rlim_t spare = 0; spare < 20; spare++) {
                ASSERT_TRUE(send_record(pair.peer.get(), "FDSTORE=1", sent.numbers));
                const int next = dup(pair.peer.get());
                close(next);
                const rlimit low{.rlim_cur = static_cast<rlim_t>(next) + spare, .rlim_max = old.rlim_max};
                ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
                auto message = receive(pair.broker.get());
                ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
                ASSERT_TRUE(message) << message.error().text();
                EXPECT_TRUE(message->truncated) << spare;
                EXPECT_TRUE(message->fds.empty());
                EXPECT_TRUE(message->text.empty());
                message->pidfd.reset();
                message->dropped.clear();
                EXPECT_EQ(test::open_fds(), before) << spare;
        }
        ASSERT_TRUE(send_record(pair.peer.get(), "FDSTORE=1", sent.numbers));
        EXPECT_EQ(received(pair.broker.get()).fds.size(), 20U) << "the socket goes on";
}

// Otherwise a peer could choose the weaker check by using up the broker's descriptors.
TEST(Message, AMessageWhosePidfdFoundNoRoomIsDropped) {
        if (!kernel_has_pidfds()) {
                GTEST_SKIP() << "kernel before 6.5 has no SCM_PIDFD";
        }
        const Pair pair(SOCK_DGRAM);
        ASSERT_TRUE(send_record(pair.peer.get(), "READY=1"));
        rlimit old{};
        ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
        const rlimit none{.rlim_cur = 3, .rlim_max = old.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
        const auto message = receive(pair.broker.get());
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
        ASSERT_TRUE(message);
        EXPECT_TRUE(message->truncated);
}

TEST(Message, ThousandsOfHostileMessagesLeakNothing) {
        const Pair pair(SOCK_DGRAM);
        const Descriptors many(253);
        const auto before = test::open_fds();
        std::mt19937 random{4096};  // NOLINT: the same messages every time
        std::size_t dropped = 0;
        for (int i = 0; i < 5000; i++) {
                const std::string text(1 + random() % 8192, 'x');
                const std::vector<int> fds(many.numbers.begin(),
                                           many.numbers.begin() + static_cast<std::ptrdiff_t>(random() % 254));
                ASSERT_TRUE(send_record(pair.peer.get(), text, fds));
                const auto message = received(pair.broker.get());
                EXPECT_EQ(message.truncated, text.size() > kMaxMessageBytes);
                EXPECT_EQ(message.fds.size(), message.truncated ? 0 : fds.size());
                dropped += message.truncated ? 1U : 0U;
        }
        EXPECT_GT(dropped, 1000U);
        EXPECT_EQ(test::open_fds(), before);
}

TEST(Message, CredentialsAreOfTheWriterNotOfTheOneWhoConnected) {
        if (geteuid() != 0) {
                GTEST_SKIP() << "needs root to change uids";
        }
        const Pair pair(SOCK_SEQPACKET);  // connected by this process
        test::Child child([&] {
                if (setresgid(61002, 61003, 61003) < 0 || setresuid(61001, 61004, 61004) < 0) {
                        return 1;
                }
                return send_record(pair.peer.get(), "READY=1") ? 0 : 1;
        });
        const auto pid = child.pid();
        ASSERT_EQ(child.wait(), 0);
        const auto message = received(pair.broker.get());
        ASSERT_TRUE(message.credentials);
        EXPECT_EQ(message.credentials->pid, pid);
        EXPECT_EQ(message.credentials->uid, 61001U) << "the real uid";
        EXPECT_EQ(message.credentials->gid, 61002U) << "the real gid";
}

TEST(Message, AConnectionInheritsTheRequestForCredentials) {
        const OwnedFd listening = test::made(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
        const sockaddr_un any{.sun_family = AF_UNIX, .sun_path = {}};  // autobind: an abstract name
        ASSERT_EQ(bind(listening.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any.sun_family), 0);
        ASSERT_EQ(listen(listening.get(), 1), 0);
        ASSERT_TRUE(prepare_receiver(listening.get()));
        sockaddr_un name{};
        socklen_t length = sizeof name;
        ASSERT_EQ(getsockname(listening.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
        const OwnedFd peer = test::made(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
        ASSERT_EQ(connect(peer.get(), reinterpret_cast<sockaddr*>(&name), length), 0);
        ASSERT_TRUE(send_record(peer.get(), "VERB=list"));  // before the accept
        const OwnedFd connection = test::made(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept");
        ASSERT_TRUE(prepare_receiver(connection.get()));
        const auto message = received(connection.get());
        ASSERT_TRUE(message.credentials);
        EXPECT_EQ(message.credentials->pid, getpid());
        EXPECT_EQ(message.pidfd.valid(), kernel_has_pidfds());
}

TEST(Message, ReceivingDoesNotBlockAndSendingNeitherBlocksNorKills) {
        const Pair pair(SOCK_SEQPACKET);
        EXPECT_EQ(receive(pair.broker.get()).error().errnum, EAGAIN);
        Result<void> sent;
        const std::string record(4096, 'x');
        while (sent) {
                sent = send_record(pair.broker.get(), record);
        }
        EXPECT_EQ(sent.error().errnum, EAGAIN);
        Pair ended(SOCK_SEQPACKET);
        ended.peer.reset();
        const auto broken = send_record(ended.broker.get(), "RESULT=ok\n");
        ASSERT_FALSE(broken);
        EXPECT_EQ(broken.error().errnum, EPIPE) << "an error, not a signal";
}

TEST(Message, TooManyDescriptorsAreRefusedBeforeSending) {
        const Pair pair(SOCK_DGRAM);
        const Descriptors sent(254);
        const auto result = send_record(pair.peer.get(), "FDSTORE=1", sent.numbers);
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().message, "cannot send 254 descriptors in one message, at most 253 fit");
        EXPECT_EQ(send_record(pair.peer.get(), "").error().errnum, EINVAL);
}

}  // namespace
}  // namespace sockbroker
