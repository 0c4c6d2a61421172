// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Real sockets of the kernel that runs the test, and what the probe says of them.
#include "broker/socket/facts.h"

#include <fcntl.h>

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/unit/support/mistakes.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

SocketFacts probed(int fd) {
        auto facts = probe_socket(fd);
        EXPECT_TRUE(facts) << facts.error().text();
        return facts.value_or(SocketFacts{});
}

std::uint64_t here() {
        const auto cookie = own_netns_cookie();
        EXPECT_TRUE(cookie) << cookie.error().text();
        return cookie.value_or(0);
}

OwnedFd dual(int type, const char* host) {
        auto fd = test::inet_socket(AF_INET6, type);
        const int off = 0;
        setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        test::bind_to(fd.get(), AF_INET6, host);
        if (type == SOCK_STREAM) {
                test::must(listen(fd.get(), 1), "listen");
        }
        return fd;
}

TEST(SocketFacts, ATcpListenerIsTaken) {
        const auto fd = test::listener();
        const auto facts = probed(fd.get());
        EXPECT_EQ(facts.protocol, Protocol::kTcp);
        EXPECT_EQ(facts.family, SocketFamily::kIpv4);
        EXPECT_TRUE(facts.listening);
        EXPECT_FALSE(facts.connected);
        EXPECT_EQ(facts.bound.address.to_string(), "127.0.0.1");
        EXPECT_NE(facts.bound.port, 0);
        EXPECT_FALSE(check_socket(facts, here()));
}

TEST(SocketFacts, ABoundUdpSocketIsTaken) {
        const auto fd = test::udp_bound(AF_INET6, "::1");
        const auto facts = probed(fd.get());
        EXPECT_EQ(facts.protocol, Protocol::kUdp);
        EXPECT_EQ(facts.family, SocketFamily::kIpv6);
        EXPECT_EQ(facts.bound.to_string(), "[::1]:" + std::to_string(facts.bound.port));
        EXPECT_FALSE(check_socket(facts, here()));
}

TEST(SocketFacts, AUdpSocketThatWasDisconnectedAgainIsTakenIfItKeptItsPort) {
        const auto peer = test::udp_bound();
        const sockaddr unspecified{.sa_family = AF_UNSPEC, .sa_data = {}};
        const auto fd = test::inet_socket(AF_INET, SOCK_DGRAM);
        test::bind_to(fd.get(), AF_INET, "127.0.0.2", probed(peer.get()).bound.port);
        test::connect_to(fd.get(), peer.get());
        EXPECT_TRUE(probed(fd.get()).connected);
        test::must(connect(fd.get(), &unspecified, sizeof unspecified), "disconnect");
        EXPECT_FALSE(check_socket(probed(fd.get()), here()));

        // A port that the kernel chose is given up by the disconnect.
        const auto other = test::udp_bound();
        test::connect_to(other.get(), peer.get());
        test::must(connect(other.get(), &unspecified, sizeof unspecified), "disconnect");
        EXPECT_EQ(probed(other.get()).bound.port, 0);
        EXPECT_FALSE(probed(other.get()).connected);
        EXPECT_EQ(check_socket(probed(other.get()), here())->code, ResultCode::kWrongSocket);
}

TEST(SocketFacts, AUdpSocketThatTalksToManyIsNotTakenForConnected) {
        for (const int domain : {AF_INET, AF_INET6}) {
                const char* host = domain == AF_INET ? "127.0.0.1" : "::1";
                const auto peer = test::udp_bound(domain, host);
                const auto fd = test::udp_bound(domain, host);
                sockaddr_storage name{};
                socklen_t length = sizeof name;
                test::must(getsockname(peer.get(), reinterpret_cast<sockaddr*>(&name), &length), "getsockname");
                for (int i = 0; i < 3; i++) {
                        ASSERT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&name), length), 1);
                }
                char byte = 0;
                ASSERT_EQ(recv(peer.get(), &byte, 1, 0), 1);
                EXPECT_FALSE(probed(fd.get()).connected);
                EXPECT_FALSE(probed(peer.get()).connected);
        }
}

TEST(SocketFacts, DualIsWhatTakesBothFamilies) {
        for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
                EXPECT_EQ(probed(dual(type, "::").get()).family, SocketFamily::kDual);
                EXPECT_EQ(probed(dual(type, "::ffff:127.0.0.1").get()).family, SocketFamily::kDual);
                EXPECT_EQ(probed(dual(type, "::1").get()).family, SocketFamily::kIpv6) << "bound to one IPv6 address";
        }
        const auto fd = test::inet_socket(AF_INET6, SOCK_DGRAM);
        const int on = 1;
        setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        test::bind_to(fd.get(), AF_INET6, "::");
        EXPECT_EQ(probed(fd.get()).family, SocketFamily::kIpv6) << "IPV6_V6ONLY";
        EXPECT_EQ(probed(test::udp_bound(AF_INET, "0.0.0.0").get()).family, SocketFamily::kIpv4);
        EXPECT_TRUE(takes(SocketFamily::kDual, Family::kIpv4) && takes(SocketFamily::kDual, Family::kIpv6));
        EXPECT_FALSE(takes(SocketFamily::kIpv4, Family::kIpv6) || takes(SocketFamily::kIpv6, Family::kIpv4));
}

TEST(SocketFacts, AMappedAddressAppearsAsIpv6) {
        const auto facts = probed(dual(SOCK_DGRAM, "::ffff:127.0.0.1").get());
        EXPECT_EQ(facts.bound.address.to_string(), "::ffff:127.0.0.1");
}

TEST(SocketFacts, TheCookieIsTheSocketsAndSurvivesDup) {
        const auto one = test::listener();
        const auto other = test::listener();
        const OwnedFd copy(fcntl(one.get(), F_DUPFD_CLOEXEC, 0));
        EXPECT_EQ(probed(one.get()).cookie, probed(copy.get()).cookie);
        EXPECT_NE(probed(one.get()).cookie, probed(other.get()).cookie);
        EXPECT_NE(probed(one.get()).cookie, 0U);
}

TEST(SocketFacts, TheProbeChangesNoFlag) {
        const auto fd = test::listener();
        const int status = fcntl(fd.get(), F_GETFL);
        const int descriptor = fcntl(fd.get(), F_GETFD);
        (void)probed(fd.get());
        EXPECT_EQ(fcntl(fd.get(), F_GETFL), status);
        EXPECT_EQ(fcntl(fd.get(), F_GETFD), descriptor);
}

TEST(SocketFacts, AClosedDescriptorIsAnErrorOfTheBrokers) {
        EXPECT_EQ(probe_socket(-1).error().errnum, EBADF);
}

TEST(SocketFacts, EachWrongDescriptorGetsItsExactMessage) {
        if (geteuid() != 0) {
                GTEST_SKIP() << "needs root for raw and packet sockets and a network namespace";
        }
        std::size_t checked = 0;
        std::string left_out;
        for (const auto& mistake : test::read_mistakes()) {
                if (mistake.result == to_string(ResultCode::kMalformed)) {
                        continue;
                }
                if (!std::ranges::all_of(mistake.fds, test::kernel_has)) {
                        left_out += " \"" + mistake.name + '"';
                        continue;
                }
                std::optional<Refusal> first;
                for (const auto& kind : mistake.fds) {
                        const auto fds = test::make_kind(kind);
                        auto refusal = check_socket(probed(fds[0].get()), here());
                        first = first ? first : refusal;
                }
                checked++;
                ASSERT_TRUE(first) << mistake.name << " was taken";
                EXPECT_EQ(to_string(first->code), mistake.result) << mistake.name;
                EXPECT_EQ(first->message, mistake.message) << mistake.name;
        }
        EXPECT_GE(checked, 17U);
        if (!left_out.empty()) {
                GTEST_SKIP() << "all but the kinds that this kernel does not have:" << left_out;
        }
}

// Of several things wrong with one socket the answer names kind, MPTCP, state, namespace, in this order.
TEST(SocketFacts, TheOrderOfChecks) {
        SocketFacts facts{.domain = AF_UNIX, .type = SOCK_STREAM, .protocol_number = 262, .netns_cookie = 1};
        const auto code = [&] { return check_socket(facts, 2)->code; };
        EXPECT_EQ(code(), ResultCode::kWrongSocket);
        facts.domain = AF_INET;
        EXPECT_EQ(code(), ResultCode::kMptcp);
        facts.protocol_number = IPPROTO_TCP;
        EXPECT_EQ(code(), ResultCode::kNotListening);
        facts.listening = true;
        EXPECT_EQ(code(), ResultCode::kForeignNetns);
        facts.netns_cookie = 2;
        EXPECT_FALSE(check_socket(facts, 2));
}

}  // namespace
}  // namespace sockbroker
