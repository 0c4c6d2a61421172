// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Makes real descriptors of every kind that tests/data/protocol_mistakes.json names.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/protocol/message.h"
#include "tests/unit/support/child.h"

namespace sockbroker::test {

inline OwnedFd made(int fd, const char* what) {
        if (fd < 0) {
                throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
        }
        return OwnedFd(fd);
}

inline void must(int result, const char* what) {
        if (result < 0) {
                throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
        }
}

inline void bind_to(int fd, int domain, const char* host, std::uint16_t port = 0) {
        sockaddr_storage address{};
        address.ss_family = static_cast<sa_family_t>(domain);
        if (domain == AF_INET) {
                auto* in = reinterpret_cast<sockaddr_in*>(&address);
                inet_pton(AF_INET, host, &in->sin_addr);
                in->sin_port = htons(port);
        } else {
                auto* in6 = reinterpret_cast<sockaddr_in6*>(&address);
                inet_pton(AF_INET6, host, &in6->sin6_addr);
                in6->sin6_port = htons(port);
        }
        must(bind(fd, reinterpret_cast<sockaddr*>(&address),
                  domain == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)),
             "bind");
}

// Connects to where `to` is bound, but to `port` if that is not -1.
inline void connect_to(int fd, int to, int port = -1) {
        sockaddr_in address{};
        socklen_t length = sizeof address;
        must(getsockname(to, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
        if (port >= 0) {
                address.sin_port = htons(static_cast<std::uint16_t>(port));
        }
        must(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
}

inline OwnedFd inet_socket(int domain, int type, int protocol = 0) {
        return made(socket(domain, type | SOCK_CLOEXEC, protocol), "socket");
}

inline OwnedFd listener(int domain = AF_INET, const char* host = "127.0.0.1", int protocol = 0) {
        auto fd = inet_socket(domain, SOCK_STREAM, protocol);
        bind_to(fd.get(), domain, host);
        must(listen(fd.get(), 8), "listen");
        return fd;
}

inline OwnedFd udp_bound(int domain = AF_INET, const char* host = "127.0.0.1") {
        auto fd = inet_socket(domain, SOCK_DGRAM);
        bind_to(fd.get(), domain, host);
        return fd;
}

// A listener of a network namespace that lives only by this socket.
inline OwnedFd foreign_listener() {
        int pair[2];
        must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
        const OwnedFd ours(pair[0]);
        OwnedFd theirs(pair[1]);
        Child child([&] {
                if (unshare(CLONE_NEWNET) < 0) {
                        return 1;
                }
                const auto fd = listener(AF_INET, "0.0.0.0");
                return send_record(theirs.get(), "fd", {fd.get()}) ? 0 : 1;
        });
        theirs.reset();
        if (child.wait() != 0) {
                throw std::runtime_error("cannot make a network namespace: run the tests as root");
        }
        auto message = receive(ours.get());
        if (!message || message->fds.size() != 1) {
                throw std::runtime_error("the foreign listener did not arrive");
        }
        return std::move(message->fds[0]);
}

// UDP-Lite has left the newest kernels, and MPTCP may be configured out.
inline bool kernel_has(const std::string& kind) {
        if (!kind.starts_with("udplite") && !kind.starts_with("mptcp")) {
                return true;
        }
        const bool stream = kind.starts_with("mptcp");
        const OwnedFd fd(
                socket(AF_INET, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, stream ? 262 : IPPROTO_UDPLITE));
        return fd.get() >= 0;
}

// The descriptor asked for comes first, then those that must stay open with it.
inline std::vector<OwnedFd> make_kind(const std::string& kind) {
        std::vector<OwnedFd> fds;
        const auto one = [&](OwnedFd fd) { fds.push_back(std::move(fd)); };
        if (kind == "tcp-listener") {
                one(listener());
        } else if (kind == "tcp-unconnected") {
                one(inet_socket(AF_INET, SOCK_STREAM));
        } else if (kind == "tcp-connected") {
                auto server = listener();
                one(inet_socket(AF_INET, SOCK_STREAM));
                connect_to(fds[0].get(), server.get());
                one(std::move(server));
        } else if (kind == "tcp-accepted") {
                auto server = listener();
                auto client = inet_socket(AF_INET, SOCK_STREAM);
                connect_to(client.get(), server.get());
                one(made(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
                one(std::move(client));
        } else if (kind == "tcp-shut-down") {
                one(listener());
                must(shutdown(fds[0].get(), SHUT_RD), "shutdown");
        } else if (kind == "udp-bound") {
                one(udp_bound());
        } else if (kind == "udp-unbound") {
                one(inet_socket(AF_INET, SOCK_DGRAM));
        } else if (kind == "udp-connected") {
                auto server = udp_bound();
                one(udp_bound());
                connect_to(fds[0].get(), server.get());
                one(std::move(server));
        } else if (kind == "udp-connected-port-0") {
                one(udp_bound());
                connect_to(fds[0].get(), fds[0].get(), 0);
        } else if (kind == "udplite-bound") {
                one(inet_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
                bind_to(fds[0].get(), AF_INET, "127.0.0.1");
        } else if (kind == "unix-stream") {
                one(made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        } else if (kind == "netlink") {
                one(made(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), "netlink"));
        } else if (kind == "packet") {
                one(made(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP)), "packet"));
        } else if (kind == "raw") {
                one(inet_socket(AF_INET, SOCK_RAW, IPPROTO_UDP));
        } else if (kind == "mptcp-listener") {
                one(listener(AF_INET, "127.0.0.1", 262));
        } else if (kind == "mptcp-unconnected") {
                one(inet_socket(AF_INET, SOCK_STREAM, 262));
        } else if (kind == "foreign-netns-listener") {
                one(foreign_listener());
        } else if (kind == "pipe") {
                int pair[2];
                must(pipe2(pair, O_CLOEXEC), "pipe");
                one(OwnedFd(pair[1]));
                one(OwnedFd(pair[0]));
        } else if (kind == "memfd") {
                one(made(memfd_create("test", MFD_CLOEXEC), "memfd"));
        } else if (kind == "eventfd") {
                one(made(eventfd(0, EFD_CLOEXEC), "eventfd"));
        } else if (kind == "pidfd") {
                one(made(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)), "pidfd"));
        } else if (kind == "file") {
                one(made(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "file"));
        } else if (kind == "o-path") {
                one(made(open("/proc/self/exe", O_PATH | O_CLOEXEC), "O_PATH"));
        } else {
                throw std::runtime_error("unknown kind of descriptor " + kind);
        }
        return fds;
}

}  // namespace sockbroker::test
