// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See sockets.h.
#include "sandbox/run/sockets.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace sockbroker::launcher {

namespace {

constexpr int kBacklog = 4096;

Result<void> set(int fd, int level, int option, int value, const char* name) {
        if (::setsockopt(fd, level, option, &value, sizeof value) < 0) {
                return fail_errno(fmt::format("cannot set {}", name));
        }
        return {};
}

Result<void> set_options(int fd, const Listen& listen) {
        const bool ipv6 = listen.at.address.family == Family::kIpv6;
        auto done = set(fd, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
        if (done && listen.protocol == Protocol::kTcp) {
                done = set(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
        }
        if (done && ipv6) {
                const bool mapped = unmapped(listen.at.address) != listen.at.address;
                done = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, mapped ? 0 : 1, "IPV6_V6ONLY");
        }
        if (done && ipv6 && listen.protocol == Protocol::kUdp) {
                constexpr int kIpv6Freebind = 78;  // linux/in6.h, which does not go with netinet/in.h
                done = set(fd, IPPROTO_IPV6, kIpv6Freebind, 1, "IPV6_FREEBIND");
        }
        return done;
}

int bind_to(int fd, const Endpoint& at) {
        if (at.address.family == Family::kIpv4) {
                sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(at.port)};
                std::memcpy(&address.sin_addr, at.address.bytes.data(), sizeof address.sin_addr);
                return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
        }
        sockaddr_in6 address{.sin6_family = AF_INET6, .sin6_port = htons(at.port)};
        std::memcpy(&address.sin6_addr, at.address.bytes.data(), sizeof address.sin6_addr);
        return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

std::string bind_hint(int errnum) {
        switch (errnum) {
        case EACCES:
                return "; a port below net.ipv4.ip_unprivileged_port_start is bound by a .socket unit, of UDP where "
                       "policy says UdpReply=original, or with "
                       "AmbientCapabilities=CAP_NET_BIND_SERVICE, which the program will not have";
        case EADDRNOTAVAIL:
                return "; bind to a loopback address, the policy says what traffic comes";
        default:
                return "";
        }
}

}  // namespace

Result<NamedFd> make_socket(const Listen& listen, const std::string& name) {
        const bool stream = listen.protocol == Protocol::kTcp;
        OwnedFd fd(::socket(listen.at.address.family == Family::kIpv4 ? AF_INET : AF_INET6,
                            (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
        const std::string what =
                fmt::format("cannot listen at {} {}", to_string(listen.protocol), listen.at.to_string());
        if (!fd) {
                return fail_errno(what);
        }
        if (auto set = set_options(fd.get(), listen); !set) {
                return fail(set.error().errnum, fmt::format("{}: {}", what, set.error().message));
        }
        if (bind_to(fd.get(), listen.at) < 0) {
                return fail(fmt::format("{}: {}{}", what, std::strerror(errno), bind_hint(errno)));
        }
        if (stream && ::listen(fd.get(), kBacklog) < 0) {
                return fail_errno(what);
        }
        return NamedFd{std::move(fd), name};
}

bool is_ip_socket(int fd) {
        int domain = 0;
        socklen_t size = sizeof domain;
        return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
               (domain == AF_INET || domain == AF_INET6);
}

}  // namespace sockbroker::launcher
