// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which sockets may be those of a .socket unit, by what PID 1 says that it listens on.
#include <arpa/inet.h>

#include <gtest/gtest.h>

#include "broker/holds/socket_unit.h"

namespace sockbroker {
namespace {

// As the kernel says where a socket is bound, v4-mapped addresses too.
Endpoint bound_to(const char* address, std::uint16_t port) {
        Endpoint endpoint{.address = {}, .port = port};
        auto* const bytes = endpoint.address.bytes.data();
        if (inet_pton(AF_INET, address, bytes) != 1) {
                endpoint.address.family = Family::kIpv6;
                EXPECT_EQ(inet_pton(AF_INET6, address, bytes), 1) << address;
        }
        return endpoint;
}

struct Case {
        Listening listening;
        Protocol protocol;
        const char* address;
        std::uint16_t port;
        bool may_be;
};

TEST(SocketUnit, HasTheSocketsThatAreBoundToWhatItListensOn) {
        constexpr auto kTcp = Protocol::kTcp;
        constexpr auto kUdp = Protocol::kUdp;
        const Case cases[] = {
                {{"Stream", "127.0.0.9:8009"}, kTcp, "127.0.0.9", 8009, true},
                {{"Stream", "127.0.0.9:8009"}, kTcp, "127.0.0.9", 8010, false},
                {{"Stream", "127.0.0.9:8009"}, kTcp, "127.0.0.8", 8009, false},
                {{"Stream", "127.0.0.9:8009"}, kTcp, "::ffff:127.0.0.9", 8009, true},
                {{"Stream", "127.0.0.9:8009"}, kUdp, "127.0.0.9", 8009, false},
                {{"Datagram", "127.0.0.2:53"}, kUdp, "127.0.0.2", 53, true},
                {{"Datagram", "127.0.0.2:53"}, kTcp, "127.0.0.2", 53, false},
                {{"Stream", "0.0.0.0:53"}, kTcp, "0.0.0.0", 53, true},
                {{"Stream", "0.0.0.0:53"}, kTcp, "::", 53, false},
                // Ports alone, and [::].
                {{"Stream", "[::]:443"}, kTcp, "::", 443, true},
                {{"Stream", "[::]:443"}, kTcp, "0.0.0.0", 443, false},
                {{"Stream", "[::]:443"}, kTcp, "::1", 443, false},
                {{"Stream", "[::1]:443"}, kTcp, "::1", 443, true},
                // Of no interface, with FreeBind=yes.
                {{"Datagram", "[fd73:6f63:6b62::1]:53"}, kUdp, "fd73:6f63:6b62::1", 53, true},
                {{"Datagram", "[fd73:6f63:6b62::1]:53"}, kUdp, "fd73:6f63:6b62::2", 53, false},
                // For both families.
                {{"Stream", "[::ffff:127.0.0.9]:443"}, kTcp, "::ffff:127.0.0.9", 443, true},
                {{"Stream", "[::ffff:127.0.0.9]:443"}, kTcp, "127.0.0.9", 443, true},
                {{"Stream", "[::ffff:127.0.0.9]:443"}, kTcp, "::ffff:127.0.0.8", 443, false},
                {{"Stream", "[fe80::1]:443%eth0"}, kTcp, "fe80::1", 443, true},
                {{"Stream", "[fe80::1]:443%eth0"}, kTcp, "fe80::2", 443, false},
                // Nothing of IP.
                {{"Stream", "/run/web/admin.sock"}, kTcp, "127.0.0.9", 8009, false},
                {{"Stream", "/run/web:8009"}, kTcp, "127.0.0.9", 8009, false},
                {{"Datagram", "@web"}, kUdp, "127.0.0.9", 8009, false},
                {{"Stream", "vsock:2:8009"}, kTcp, "127.0.0.9", 8009, false},
                {{"SequentialPacket", "/run/web/control"}, kTcp, "127.0.0.9", 8009, false},
                {{"SequentialPacket", "127.0.0.9:8009"}, kTcp, "127.0.0.9", 8009, false},  // SCTP
                {{"FIFO", "/run/web/fifo"}, kTcp, "127.0.0.9", 8009, false},
                {{"Netlink", "kobject-uevent 1"}, kUdp, "127.0.0.9", 8009, false},
                {{"MessageQueue", "/web"}, kUdp, "127.0.0.9", 8009, false},
                // What a later systemd may write.
                {{"Stream", "127.0.0.9:http"}, kTcp, "127.0.0.1", 80, true},
                {{"Stream", ""}, kTcp, "127.0.0.1", 80, true},
        };
        for (const auto& one : cases) {
                EXPECT_EQ(may_have_opened({&one.listening, 1}, one.protocol, bound_to(one.address, one.port)),
                          one.may_be)
                        << one.listening.type << " " << one.listening.address << " and " << one.address << " "
                        << one.port;
        }
}

TEST(SocketUnit, OneOfItsAddressesSuffices) {
        const Listening both[] = {{"Stream", "/run/web.sock"}, {"Stream", "127.0.0.9:80"}};
        EXPECT_TRUE(may_have_opened(both, Protocol::kTcp, bound_to("127.0.0.9", 80)));
        EXPECT_FALSE(may_have_opened(both, Protocol::kTcp, bound_to("127.0.0.9", 81)));
        EXPECT_TRUE(may_have_opened({}, Protocol::kTcp, bound_to("127.0.0.9", 81)))
                << "of a unit whose file is gone nothing is known";
}

}  // namespace
}  // namespace sockbroker
