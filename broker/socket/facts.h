// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a received descriptor is: one probe by getsockopt and getsockname, one struct, one pure check. Never
// reads, accepts, or changes a flag or option: those are shared with the owner.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "broker/base/net.h"
#include "broker/base/result.h"
#include "broker/protocol/result_code.h"

namespace sockbroker {

// The families whose lookups a socket can take. kDual: an IPv6 socket that takes IPv4 as well.
enum class SocketFamily : std::uint8_t { kIpv4 = 0, kIpv6 = 1, kDual = 2 };

[[nodiscard]] std::string_view to_string(SocketFamily family);  // "ipv4", "ipv6", "dual"
[[nodiscard]] constexpr bool takes(SocketFamily socket, Family lookup) {
        return socket == SocketFamily::kDual || (lookup == Family::kIpv4) == (socket == SocketFamily::kIpv4);
}

struct SocketFacts {
        int domain = -1;          // SO_DOMAIN; -1: not a socket at all
        int type = 0;             // SO_TYPE
        int protocol_number = 0;  // SO_PROTOCOL
        bool listening = false;   // SO_ACCEPTCONN
        bool connected = false;   // getpeername succeeds
        std::uint64_t cookie = 0;
        std::uint64_t netns_cookie = 0;
        // For AF_INET and AF_INET6 only:
        Protocol protocol = Protocol::kTcp;
        SocketFamily family = SocketFamily::kIpv4;
        Endpoint bound;  // v4-mapped addresses appear as IPv6 here, port 0: not bound
};

// SO_NETNS_COOKIE of a fresh socket in the caller's network namespace.
[[nodiscard]] Result<std::uint64_t> own_netns_cookie();

// An error only where the kernel itself fails (fd not open); a file that is no socket is a fact.
[[nodiscard]] Result<SocketFacts> probe_socket(int fd);

// What it is, for a person, where it is not what can be brokered: "a UNIX socket", "a descriptor that is no socket".
[[nodiscard]] std::string kind_of(const SocketFacts& facts);

// wrong-socket, mptcp, not-listening, foreign-netns: whether this can be brokered at all. Pure.
[[nodiscard]] std::optional<Refusal> check_socket(const SocketFacts& facts, std::uint64_t netns_cookie);

}  // namespace sockbroker
