// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Asks the kernel what a received descriptor is, and judges it. Only getsockopt, getsockname and getpeername: none of
// them changes anything that the owner could see. No socket of the owner's is ever read, accepted from or set.
#include "broker/socket/facts.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"

// Kernel 5.14 and 5.6.
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

namespace sockbroker {
namespace {

template <class T>
Result<T> option(int fd, int level, int name, const char* what) {
        T value{};
        socklen_t length = sizeof value;
        if (getsockopt(fd, level, name, &value, &length) < 0) {
                return fail_errno(fmt::format("cannot read {} of the received socket", what));
        }
        return value;
}

bool is_inet(int domain) {
        return domain == AF_INET || domain == AF_INET6;
}

Endpoint to_endpoint(const sockaddr_storage& name) {
        Endpoint endpoint;
        if (name.ss_family == AF_INET) {
                sockaddr_in in{};
                std::memcpy(&in, &name, sizeof in);
                std::memcpy(endpoint.address.bytes.data(), &in.sin_addr, sizeof in.sin_addr);
                endpoint.port = ntohs(in.sin_port);
        } else {
                sockaddr_in6 in6{};
                std::memcpy(&in6, &name, sizeof in6);
                endpoint.address.family = Family::kIpv6;
                std::memcpy(endpoint.address.bytes.data(), &in6.sin6_addr, sizeof in6.sin6_addr);
                endpoint.port = ntohs(in6.sin6_port);
        }
        return endpoint;
}

bool is_connected(int fd, const SocketFacts& facts) {
        sockaddr_storage name{};
        socklen_t length = sizeof name;
        if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) == 0) {
                return true;
        }
        if (!is_inet(facts.domain) || facts.type != SOCK_DGRAM) {
                return false;
        }
        // A UDP socket connected to port 0 has no peer name, and lookups refuse it all the same. It has a cached
        // route, which an unconnected one never has: without one IP_MTU is ENOTCONN (ip(7)).
        const int level = facts.domain == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
        int mtu = 0;
        length = sizeof mtu;
        return getsockopt(fd, level, facts.domain == AF_INET ? IP_MTU : IPV6_MTU, &mtu, &length) == 0;
}

// bind(2) to a single IPv6 address other than a v4-mapped one sets IPV6_V6ONLY in the kernel (__inet6_bind), and it
// cannot be set any more after that: so it says of every bound socket what the socket takes, that to ::ffff:a.b.c.d
// included, which takes both families.
Result<void> probe_inet(int fd, SocketFacts& facts) {
        facts.protocol = facts.type == SOCK_DGRAM ? Protocol::kUdp : Protocol::kTcp;
        sockaddr_storage name{};
        socklen_t length = sizeof name;
        if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) < 0) {
                return fail_errno("cannot read the address of the received socket");
        }
        facts.bound = to_endpoint(name);
        if (facts.domain == AF_INET6) {
                const auto only = option<int>(fd, IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY");
                if (!only) {
                        return std::unexpected(only.error());
                }
                facts.family = *only != 0 ? SocketFamily::kIpv6 : SocketFamily::kDual;
        }
        return {};
}

}  // namespace

std::string kind_of(const SocketFacts& facts) {
        static constexpr struct {
                int number;
                std::string_view name;
        } kDomains[] = {{AF_UNIX, "a UNIX socket"},   {AF_NETLINK, "a netlink socket"}, {AF_PACKET, "a packet socket"},
                        {AF_VSOCK, "a vsock socket"}, {AF_ALG, "a crypto socket"},      {AF_XDP, "an XDP socket"}},
          kProtocols[] = {{IPPROTO_SCTP, "an SCTP socket"},
                          {IPPROTO_UDPLITE, "a UDP-Lite socket"},
                          {IPPROTO_ICMP, "a ping socket"},
                          {IPPROTO_ICMPV6, "a ping socket"},
                          {IPPROTO_DCCP, "a DCCP socket"}};
        const auto find = [](const auto& table, int number, const std::string& otherwise) {
                const auto* found = std::find_if(std::begin(table), std::end(table),
                                                 [&](const auto& entry) { return entry.number == number; });
                return found != std::end(table) ? std::string(found->name) : otherwise;
        };
        if (facts.domain < 0) {
                return "a descriptor that is no socket";
        }
        if (!is_inet(facts.domain)) {
                return find(kDomains, facts.domain, fmt::format("a socket of address family {}", facts.domain));
        }
        if (facts.type == SOCK_RAW) {
                return "a raw socket";
        }
        return find(kProtocols, facts.protocol_number,
                    fmt::format("a socket of type {} and protocol {}", facts.type, facts.protocol_number));
}

std::string_view to_string(SocketFamily family) {
        switch (family) {
        case SocketFamily::kIpv4:
                return "ipv4";
        case SocketFamily::kIpv6:
                return "ipv6";
        case SocketFamily::kDual:
                break;
        }
        return "dual";
}

Result<std::uint64_t> own_netns_cookie() {
        // A UNIX socket, since those need no address family that a sandbox might deny.
        const OwnedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!fd) {
                return fail_errno("cannot make a socket to learn the network namespace's cookie");
        }
        return option<std::uint64_t>(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, "SO_NETNS_COOKIE (kernel 5.14)");
}

Result<SocketFacts> probe_socket(int fd) {
        SocketFacts facts;
        const auto domain = option<int>(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
        if (!domain) {
                // A descriptor opened with O_PATH can be handed over too, and gives EBADF here.
                const int errnum = domain.error().errnum;
                if (errnum == ENOTSOCK || (errnum == EBADF && fcntl(fd, F_GETFD) >= 0)) {
                        return facts;
                }
                return std::unexpected(domain.error());
        }
        facts.domain = *domain;
        const auto type = option<int>(fd, SOL_SOCKET, SO_TYPE, "SO_TYPE");
        const auto protocol = option<int>(fd, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL");
        const auto listening = option<int>(fd, SOL_SOCKET, SO_ACCEPTCONN, "SO_ACCEPTCONN");
        for (const auto* value : {&type, &protocol, &listening}) {
                if (!*value) {
                        return std::unexpected(value->error());
                }
        }
        facts.type = *type;
        facts.protocol_number = *protocol;
        facts.listening = *listening != 0;
        const auto cookie = option<std::uint64_t>(fd, SOL_SOCKET, SO_COOKIE, "SO_COOKIE");
        const auto netns = option<std::uint64_t>(fd, SOL_SOCKET, SO_NETNS_COOKIE, "SO_NETNS_COOKIE (kernel 5.14)");
        for (const auto* value : {&cookie, &netns}) {
                if (!*value) {
                        return std::unexpected(value->error());
                }
        }
        facts.cookie = *cookie;
        facts.netns_cookie = *netns;
        facts.connected = is_connected(fd, facts);
        if (is_inet(facts.domain)) {
                if (auto done = probe_inet(fd, facts); !done) {
                        return std::unexpected(done.error());
                }
        }
        return facts;
}

// In this order: what kind of thing it is, MPTCP, its state, its namespace. The state before the namespace, since a
// person finds it more easily.
std::optional<Refusal> check_socket(const SocketFacts& facts, std::uint64_t netns_cookie) {
        const auto refuse = [](ResultCode code, std::string message) { return Refusal{code, std::move(message), {}}; };
        const bool stream = is_inet(facts.domain) && facts.type == SOCK_STREAM;
        if (stream && facts.protocol_number == IPPROTO_MPTCP) {
                return refuse(
                        ResultCode::kMptcp,
                        "an MPTCP socket cannot be brokered, the kernel dispatches to plain TCP only; make a plain TCP "
                        "listener: in Go by GODEBUG=multipathtcp=0 or ListenConfig.SetMultipathTCP(false), in a "
                        ".socket unit without SocketProtocol=mptcp, elsewhere without IPPROTO_MPTCP and mptcpize");
        }
        const bool tcp = stream && facts.protocol_number == IPPROTO_TCP;
        const bool udp = is_inet(facts.domain) && facts.type == SOCK_DGRAM && facts.protocol_number == IPPROTO_UDP;
        if (!tcp && !udp) {
                return refuse(
                        ResultCode::kWrongSocket,
                        fmt::format("{} cannot be brokered; hand over a listening TCP socket or a bound, unconnected "
                                    "UDP socket, IPv4 or IPv6",
                                    kind_of(facts)));
        }
        if (tcp && facts.connected) {
                return refuse(
                        ResultCode::kNotListening,
                        "the TCP socket is connected and so belongs to one client; hand over the one that listens");
        }
        if (tcp && !facts.listening) {
                return refuse(ResultCode::kNotListening,
                              "the TCP socket does not listen, or was shut down; call listen() before handing it over");
        }
        if (udp && facts.connected) {
                return refuse(ResultCode::kWrongSocket,
                              "the UDP socket is connected to one peer; hand over one that is bound and not connected");
        }
        if (udp && facts.bound.port == 0) {
                return refuse(
                        ResultCode::kWrongSocket,
                        "the UDP socket is not bound; bind it first, to the port that its answers shall come from");
        }
        if (facts.netns_cookie != netns_cookie) {
                return refuse(
                        ResultCode::kForeignNetns,
                        "the socket belongs to another network namespace than the broker; make it in the broker's (a "
                        ".socket unit does), or ask that namespace's own broker (sockbrokerd@NETNS.service) by "
                        "sockbrokerctl --netns=NETNS or sockbroker-run --runtime-dir=/run/sockbroker/netns/NETNS");
        }
        return std::nullopt;
}

}  // namespace sockbroker
