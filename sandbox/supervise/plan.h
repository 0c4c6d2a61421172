// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a bind(2) of the program is: to be taken over, to be made as it was asked, or to be refused. Pure.
//
// The supervisor looks at the socket's options before the kernel does, and another thread of the program may set them
// in between. So a bind is made as asked only for what stays true whatever the program sets meanwhile: its bytes, and
// the type and protocol of its socket.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"

namespace sockbroker::supervise {

// Of the socket, before it is bound.
struct SocketKind {
        int domain = -1;
        int type = 0;
        int protocol = 0;
        bool v6only = false;
};

// None: neither plain TCP nor UDP.
[[nodiscard]] std::optional<Protocol> protocol_of(const SocketKind& socket);

// --bind=PROTO:PORTS
struct Limit {
        Protocol protocol = Protocol::kTcp;
        PortRange ports;

        bool operator==(const Limit&) const = default;
};

// "tcp:80", "udp:*", "tcp:1000-2000"
[[nodiscard]] Result<Limit> parse_limit(std::string_view text);

// Where the program wants its socket, of those binds that are taken over.
struct Asked {
        Protocol protocol = Protocol::kTcp;
        Endpoint at;        // IPv4 too where the socket is one of IPv6 and the address v4-mapped
        bool ipv6 = false;  // the socket's domain
        bool dual = false;  // it takes both families: asked at `::`, and at 0.0.0.0 as well

        bool operator==(const Asked&) const = default;
};

struct Plan {
        std::optional<Asked> taken_over;
        int errnum = 0;  // of what is refused

        bool operator==(const Plan&) const = default;
};

// Neither taken over nor refused: made as asked. So are all that are no TCP or UDP over IP, ports that the kernel
// chooses, loopback addresses, and what the limits leave out (none: they leave nothing out). What the kernel would
// refuse because of the socket's options is refused here and never left to it.
[[nodiscard]] Plan plan_bind(const SocketKind& socket, std::span<const std::byte> address,
                             const std::vector<Limit>& limits);

// Of an address of IPv4 or IPv6.
[[nodiscard]] bool asks_for_any_port(std::span<const std::byte> address);

// Of those that are made as asked: whether no service takes it, as it is of MPTCP, UDP-Lite, SCTP or DCCP, and would be
// taken over or refused if it were of TCP. The limits leave out all that they do not name.
[[nodiscard]] bool nobody_takes(const SocketKind& socket, std::span<const std::byte> address,
                                const std::vector<Limit>& limits);

// "tcp 0.0.0.0:80", for people.
[[nodiscard]] std::string describe(const Asked& asked);

// 127.0.0.1, ::1
[[nodiscard]] Address loopback(Family family);

// A sockaddr as bytes.
struct SocketAddress {
        sockaddr_storage storage{};
        socklen_t size = 0;

        [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};
[[nodiscard]] SocketAddress to_socket_address(const Endpoint& at, bool mapped);

}  // namespace sockbroker::supervise
