// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A holder that was taken over: hostile code under the filters of a real one, with the descriptors of a real one: its
// ends of the channel, the socket connected to PID 1, and sockets that it keeps. The row in docs/security.md.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>

#include "broker/hands/link.h"
#include "broker/hands/roles.h"
#include "broker/protocol/message.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::hands {
namespace {

OwnedFd bound(int type) {
        auto fd = test::made(socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket");
        sockaddr_in address{.sin_family = AF_INET};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        test::must(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
        return fd;
}

sockaddr_in name_of(int fd) {
        sockaddr_in address{};
        socklen_t size = sizeof address;
        test::must(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
        return address;
}

class TakenOverHolder : public testing::Test {
protected:
        void SetUp() override {
                auto ends = Link::make();
                ASSERT_TRUE(ends) << ends.error().text();
                channel_ = std::make_unique<Link::Ends>(std::move(*ends));
                test::must(listen(tcp_.get(), 8), "listen");
        }

        // The errno that it gets; 0: it succeeds. Allocates nothing: a filter may forbid that.
        static int attempt(const std::function<bool()>& act) {
                const auto below = zygote_profile();
                const auto own = profile_of(Role::kHolder);
                const auto outer = below ? sandbox::compile(*below) : std::unexpected(below.error());
                const auto inner = own ? sandbox::compile(*own) : std::unexpected(own.error());
                if (!outer || !inner) {
                        return -1;
                }
                test::Child holder([&] {
                        signal(SIGPIPE, SIG_IGN);
                        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !outer->install_in_this_thread() ||
                            !inner->install_in_this_thread()) {
                                return 200;
                        }
                        errno = 0;
                        return act() ? 0 : errno;
                });
                return holder.wait();
        }

        std::unique_ptr<Link::Ends> channel_;
        OwnedFd tcp_ = bound(SOCK_STREAM);
        OwnedFd udp_ = bound(SOCK_DGRAM);
        OwnedFd other_ = bound(SOCK_DGRAM);
};

bool send_with(int socket, int fd) {
        return send_record(socket, "x", {fd}).has_value();
}

TEST_F(TakenOverHolder, PassesNoDescriptorToTheCore) {
        EXPECT_EQ(attempt([&] { return send_with(channel_->hand_orders.get(), tcp_.get()); }), EPIPE);
        EXPECT_EQ(attempt([&] { return send_with(channel_->hand_answers.get(), tcp_.get()); }), ENOTSOCK);
}

TEST_F(TakenOverHolder, AcceptsNoConnectionOfTheServiceAndMakesNoSocket) {
        const auto client = test::made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
        const auto address = name_of(tcp_.get());
        test::must(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
        EXPECT_EQ(attempt([&] { return accept4(tcp_.get(), nullptr, nullptr, 0) >= 0; }), ENOSYS);
        EXPECT_EQ(attempt([&] { return accept(tcp_.get(), nullptr, nullptr) >= 0; }), ENOSYS);
        EXPECT_EQ(attempt([] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; }), ENOSYS);
        EXPECT_EQ(attempt([] { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }), ENOSYS);
        EXPECT_EQ(attempt([&] {
                          return connect(udp_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
                  }),
                  ENOSYS);
        EXPECT_EQ(attempt([] { return open("/etc/passwd", O_RDONLY) >= 0; }), ENOSYS);
}

// What is left to it, of the sockets of its own service.
TEST_F(TakenOverHolder, ReadsAndSendsDatagramsOfTheSocketsThatItKeeps) {
        const auto there = name_of(udp_.get());
        ASSERT_EQ(sendto(other_.get(), "asked", 5, 0, reinterpret_cast<const sockaddr*>(&there), sizeof there), 5);
        EXPECT_EQ(attempt([&] {
                          char text[8];
                          iovec vector{text, sizeof text};
                          msghdr header{.msg_iov = &vector, .msg_iovlen = 1};
                          return recvmsg(udp_.get(), &header, 0) == 5;
                  }),
                  0);
        auto back = name_of(other_.get());
        EXPECT_EQ(attempt([&] {
                          char text[] = "x";
                          iovec vector{text, 1};
                          msghdr header{
                                  .msg_name = &back, .msg_namelen = sizeof back, .msg_iov = &vector, .msg_iovlen = 1};
                          return sendmsg(udp_.get(), &header, 0) == 1;
                  }),
                  0);
}

}  // namespace
}  // namespace sockbroker::hands
