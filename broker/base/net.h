// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The words of addresses: protocol, family, address, prefix, port range, endpoint; pure values with
// parsing and printing. Addresses are kept in network byte order in 16 bytes (IPv4 uses the first four),
// ports and lengths in host order. IPv4 and IPv6 never meet: nothing is parsed to a v4-mapped form.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

enum class Protocol : std::uint8_t { kTcp = 0, kUdp = 1 };
enum class Family : std::uint8_t { kIpv4 = 0, kIpv6 = 1 };

[[nodiscard]] std::string_view to_string(Protocol protocol);  // "tcp", "udp"
[[nodiscard]] std::string_view to_string(Family family);      // "ipv4", "ipv6"
[[nodiscard]] std::optional<Protocol> parse_protocol(std::string_view text);
[[nodiscard]] constexpr unsigned address_bits(Family family) {
        return family == Family::kIpv4 ? 32 : 128;
}

struct Address {
        Family family = Family::kIpv4;
        std::array<std::uint8_t, 16> bytes{};

        auto operator<=>(const Address&) const = default;
        [[nodiscard]] std::string to_string() const;  // "1.0.0.1", "2606:4700::1", without brackets
};

// An address without brackets. Refuses v4-mapped IPv6 addresses and zone ids.
[[nodiscard]] std::optional<Address> parse_address(std::string_view text);

struct Prefix {
        Address address;
        std::uint8_t length = 0;

        auto operator<=>(const Prefix&) const = default;
        [[nodiscard]] bool contains(const Address& other) const;
        [[nodiscard]] std::string to_string() const;  // "1.0.0.0/24", "2606:4700::/32"
};

// ADDRESS[/LEN] without brackets; errors: not an address, length out of range, host bits set, v4-mapped.
[[nodiscard]] Result<Prefix> parse_prefix(std::string_view text);

[[nodiscard]] bool is_loopback(const Address& address);   // 127.0.0.0/8, ::1
[[nodiscard]] bool is_multicast(const Address& address);  // 224.0.0.0/4, ff00::/8
[[nodiscard]] bool is_broadcast(const Address& address);  // 255.255.255.255
// A v4-mapped address (::ffff:0:0/96), as sockets of both families have, as the IPv4 one that it stands for; any other
// as it is.
[[nodiscard]] Address unmapped(const Address& address);
// The address with all bits after the first `length` cleared.
[[nodiscard]] Address masked(const Address& address, unsigned length);

struct PortRange {
        std::uint16_t first = 1;
        std::uint16_t last = 65535;

        auto operator<=>(const PortRange&) const = default;
        [[nodiscard]] bool contains(std::uint16_t port) const { return first <= port && port <= last; }
        [[nodiscard]] unsigned width() const { return last - first + 1U; }
        [[nodiscard]] std::string to_string() const;  // "53", "1024-65535", "*"
};

// N, N-M or *; errors: not a number, port 0, beyond 65535, backwards.
[[nodiscard]] Result<PortRange> parse_ports(std::string_view text);

struct Endpoint {
        Address address;
        std::uint16_t port = 0;

        auto operator<=>(const Endpoint&) const = default;
        [[nodiscard]] std::string to_string() const;  // "1.0.0.1:53", "[2606:4700::1]:53"
};

// ADDRESS:PORT with IPv6 in brackets, as --from takes it.
[[nodiscard]] Result<Endpoint> parse_endpoint(std::string_view text);

// A whole decimal number without sign or leading white space, at most `limit`.
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t limit);

}  // namespace sockbroker
