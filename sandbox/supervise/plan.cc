// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/plan.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace sockbroker::supervise {

namespace {

// As far as the kernel reads it: RFC 2133 had no scope.
constexpr std::size_t kSizeOfIpv6 = offsetof(sockaddr_in6, sin6_scope_id);

template <class Sockaddr>
Sockaddr read_as(std::span<const std::byte> bytes) {
        Sockaddr address{};
        std::memcpy(&address, bytes.data(), std::min(bytes.size(), sizeof address));
        return address;
}

bool within(const std::vector<Limit>& limits, Protocol protocol, std::uint16_t port) {
        return limits.empty() || std::ranges::any_of(limits, [&](const Limit& limit) {
                       return limit.protocol == protocol && limit.ports.contains(port);
               });
}

// As inet_bind() reads it.
Plan read_ipv4(std::span<const std::byte> bytes) {
        if (bytes.size() < sizeof(sockaddr_in)) {
                return {.taken_over = {}, .errnum = EINVAL};
        }
        const auto address = read_as<sockaddr_in>(bytes);
        // AF_UNSPEC with the unspecified address is an old way to say AF_INET.
        if (address.sin_family != AF_INET &&
            !(address.sin_family == AF_UNSPEC && address.sin_addr.s_addr == htonl(INADDR_ANY))) {
                return {.taken_over = {}, .errnum = EAFNOSUPPORT};
        }
        Asked asked{.at = {.port = ntohs(address.sin_port)}};
        std::memcpy(asked.at.address.bytes.data(), &address.sin_addr, sizeof address.sin_addr);
        return {.taken_over = asked};
}

// As inet6_bind() reads it; `errnum` beside an address: with IPV6_V6ONLY the socket cannot be bound there.
Plan read_ipv6(std::span<const std::byte> bytes, bool v6only) {
        if (bytes.size() < kSizeOfIpv6) {
                return {.taken_over = {}, .errnum = EINVAL};
        }
        const auto address = read_as<sockaddr_in6>(bytes);
        if (address.sin6_family != AF_INET6) {
                return {.taken_over = {}, .errnum = EAFNOSUPPORT};
        }
        Address bound{.family = Family::kIpv6};
        std::memcpy(bound.bytes.data(), &address.sin6_addr, sizeof address.sin6_addr);
        const Asked asked{.at = {.address = unmapped(bound), .port = ntohs(address.sin6_port)},
                          .ipv6 = true,
                          .dual = !v6only && IN6_IS_ADDR_UNSPECIFIED(&address.sin6_addr)};
        return {.taken_over = asked, .errnum = v6only && asked.at.address != bound ? EINVAL : 0};
}

}  // namespace

std::optional<Protocol> protocol_of(const SocketKind& socket) {
        if (socket.type == SOCK_STREAM && socket.protocol == IPPROTO_TCP) {
                return Protocol::kTcp;
        }
        if (socket.type == SOCK_DGRAM && socket.protocol == IPPROTO_UDP) {
                return Protocol::kUdp;
        }
        return std::nullopt;
}

Result<Limit> parse_limit(std::string_view text) {
        const auto colon = text.find(':');
        const auto protocol = parse_protocol(text.substr(0, colon));
        if (colon == std::string_view::npos || !protocol) {
                return fail("--bind= wants PROTO:PORTS, as in tcp:80, udp:* or tcp:8000-8999");
        }
        const auto ports = parse_ports(text.substr(colon + 1));
        if (!ports) {
                return fail(fmt::format("--bind=: {}", ports.error().message));
        }
        return Limit{*protocol, *ports};
}

Plan plan_bind(const SocketKind& socket, std::span<const std::byte> bytes, const std::vector<Limit>& limits) {
        const auto protocol = protocol_of(socket);
        if (!protocol || (socket.domain != AF_INET && socket.domain != AF_INET6)) {
                return {};
        }
        Plan plan = socket.domain == AF_INET ? read_ipv4(bytes) : read_ipv6(bytes, socket.v6only);
        if (!plan.taken_over) {
                return plan;
        }
        plan.taken_over->protocol = *protocol;
        const Endpoint& at = plan.taken_over->at;
        if (at.port == 0 || is_loopback(at.address) || !within(limits, *protocol, at.port)) {
                return {};
        }
        return plan.errnum == 0 ? plan : Plan{.taken_over = {}, .errnum = plan.errnum};
}

bool asks_for_any_port(std::span<const std::byte> address) {
        return read_as<sockaddr_in>(address).sin_port == 0;  // at the same place as sin6_port
}

bool nobody_takes(const SocketKind& socket, std::span<const std::byte> address, const std::vector<Limit>& limits) {
        // Not ICMP, whose port is no port, nor raw sockets, which have none.
        static constexpr std::array kOthers = {IPPROTO_MPTCP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_DCCP};
        SocketKind as_tcp = socket;
        as_tcp.type = SOCK_STREAM;
        as_tcp.protocol = IPPROTO_TCP;
        return limits.empty() && socket.type != SOCK_RAW &&
               std::ranges::find(kOthers, socket.protocol) != kOthers.end() &&
               plan_bind(as_tcp, address, limits) != Plan{};
}

std::string describe(const Asked& asked) {
        return fmt::format("{} {}", to_string(asked.protocol), asked.at.to_string());
}

Address loopback(Family family) {
        Address address{.family = family};
        if (family == Family::kIpv4) {
                address.bytes = {127, 0, 0, 1};
        } else {
                address.bytes[15] = 1;
        }
        return address;
}

SocketAddress to_socket_address(const Endpoint& at, bool mapped) {
        SocketAddress address;
        if (at.address.family == Family::kIpv4 && !mapped) {
                sockaddr_in one{.sin_family = AF_INET, .sin_port = htons(at.port)};
                std::memcpy(&one.sin_addr, at.address.bytes.data(), sizeof one.sin_addr);
                std::memcpy(&address.storage, &one, sizeof one);
                address.size = sizeof one;
                return address;
        }
        sockaddr_in6 one{.sin6_family = AF_INET6, .sin6_port = htons(at.port)};
        if (at.address.family == Family::kIpv4) {
                one.sin6_addr.s6_addr[10] = one.sin6_addr.s6_addr[11] = 0xff;
                std::memcpy(one.sin6_addr.s6_addr + 12, at.address.bytes.data(), 4);
        } else {
                std::memcpy(&one.sin6_addr, at.address.bytes.data(), sizeof one.sin6_addr);
        }
        std::memcpy(&address.storage, &one, sizeof one);
        address.size = sizeof one;
        return address;
}

}  // namespace sockbroker::supervise
