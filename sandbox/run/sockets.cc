// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See sockets.h.
#include "sandbox/run/sockets.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
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
                done = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY");
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
                return "; a port below net.ipv4.ip_unprivileged_port_start is bound by a .socket unit, or with "
                       "AmbientCapabilities=CAP_NET_BIND_SERVICE, which the program will not have";
        case EADDRNOTAVAIL:
                return "; bind to a loopback address, the policy says what traffic comes";
        default:
                return "";
        }
}

}  // namespace

Result<std::vector<NamedFd>> take_passed() {
        char** names = nullptr;
        const int number = ::sd_listen_fds_with_names(1, &names);
        if (number < 0) {
                return fail(number, "cannot take the sockets that were passed (LISTEN_FDS, LISTEN_FDNAMES)");
        }
        std::vector<NamedFd> passed;
        for (int i = 0; i < number; ++i) {
                passed.push_back({OwnedFd(SD_LISTEN_FDS_START + i), names[i]});
                std::free(names[i]);
        }
        std::free(static_cast<void*>(names));
        return passed;
}

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

Result<void> pass_on(std::vector<NamedFd>& sockets) {
        const int first = SD_LISTEN_FDS_START;
        const int end = first + static_cast<int>(sockets.size());
        // First out of the way of each other.
        for (NamedFd& socket : sockets) {
                const int moved = ::fcntl(socket.fd.get(), F_DUPFD_CLOEXEC, end);
                if (moved < 0) {
                        return fail_errno("cannot arrange the sockets for the program (LimitNOFILE=?)");
                }
                socket.fd.reset(moved);
        }
        std::vector<std::string> names;
        for (std::size_t i = 0; i < sockets.size(); ++i) {
                if (::dup2(sockets[i].fd.get(), first + static_cast<int>(i)) < 0) {
                        return fail_errno("cannot arrange the sockets for the program");
                }
                names.push_back(sockets[i].name.empty() ? "unknown" : sockets[i].name);
                (void)sockets[i].fd.release();  // closed below, with all others
        }
        if (::close_range(static_cast<unsigned>(end), ~0U, 0) < 0) {
                return fail_errno("cannot close what the program is not to have");
        }
        if (sockets.empty()) {
                // Of others, and not for the program.
                ::unsetenv("LISTEN_PID");
                ::unsetenv("LISTEN_FDS");
                ::unsetenv("LISTEN_FDNAMES");
                return {};
        }
        const bool set = ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1) == 0 &&
                         ::setenv("LISTEN_FDS", std::to_string(sockets.size()).c_str(), 1) == 0 &&
                         ::setenv("LISTEN_FDNAMES", fmt::format("{}", fmt::join(names, ":")).c_str(), 1) == 0;
        if (!set) {
                return fail_errno("cannot set LISTEN_FDS for the program");
        }
        return {};
}

}  // namespace sockbroker::launcher
