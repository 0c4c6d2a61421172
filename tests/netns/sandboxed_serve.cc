// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/netns/sandboxed_serve.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

namespace {

std::string text_of(const sockaddr_storage& address) {
        char text[INET6_ADDRSTRLEN] = "?";
        unsigned port = 0;
        if (address.ss_family == AF_INET) {
                const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(address);
                inet_ntop(AF_INET, &ipv4.sin_addr, text, sizeof text);
                port = ntohs(ipv4.sin_port);
        } else {
                const auto& ipv6 = reinterpret_cast<const sockaddr_in6&>(address);
                inet_ntop(AF_INET6, &ipv6.sin6_addr, text, sizeof text);
                port = ntohs(ipv6.sin6_port);
        }
        return std::string(text) + " " + std::to_string(port);
}

void serve_stream(int listener, const std::string& name) {
        sockaddr_storage peer{};
        sockaddr_storage local{};
        socklen_t size = sizeof peer;
        const int connection = accept(listener, reinterpret_cast<sockaddr*>(&peer), &size);
        size = sizeof local;
        if (connection >= 0 && getsockname(connection, reinterpret_cast<sockaddr*>(&local), &size) == 0) {
                const std::string answer = name + " " + text_of(peer) + " " + text_of(local) + "\n";
                (void)!write(connection, answer.data(), answer.size());  // a client that left is no fault of ours
        }
        close(connection);
}

// The answer leaves from the address that was asked: the control message goes back as it came.
void serve_datagram(int sock, const std::string& name) {
        char text[512];
        alignas(cmsghdr) char control[256];
        sockaddr_storage peer{};
        iovec vector{.iov_base = text, .iov_len = sizeof text};
        msghdr header{.msg_name = &peer,
                      .msg_namelen = sizeof peer,
                      .msg_iov = &vector,
                      .msg_iovlen = 1,
                      .msg_control = control,
                      .msg_controllen = sizeof control};
        if (recvmsg(sock, &header, MSG_DONTWAIT) < 0) {
                return;
        }
        std::string local = "? 0";
        cmsghdr* const part = CMSG_FIRSTHDR(&header);
        if (part != nullptr && part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
                auto& info = *reinterpret_cast<in_pktinfo*>(CMSG_DATA(part));
                char address[INET_ADDRSTRLEN];
                local = std::string(inet_ntop(AF_INET, &info.ipi_addr, address, sizeof address)) + " 53";
                info.ipi_spec_dst = info.ipi_addr;
                info.ipi_ifindex = 0;
        } else if (part != nullptr && part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
                auto& info = *reinterpret_cast<in6_pktinfo*>(CMSG_DATA(part));
                char address[INET6_ADDRSTRLEN];
                local = std::string(inet_ntop(AF_INET6, &info.ipi6_addr, address, sizeof address)) + " 53";
                info.ipi6_ifindex = 0;
        }
        std::string answer = name + " " + text_of(peer) + " " + local + "\n";
        vector = {.iov_base = answer.data(), .iov_len = answer.size()};
        header.msg_flags = 0;
        (void)sendmsg(sock, &header, 0);  // a test sees that nothing came
}

}  // namespace

void serve_passed(int listeners, const std::string& name) {
        std::vector<pollfd> watched;
        for (int fd = 3; fd < 3 + listeners; ++fd) {
                const int on = 1;
                (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
                (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
                watched.push_back({.fd = fd, .events = POLLIN, .revents = 0});
        }
        for (;;) {
                if (poll(watched.data(), watched.size(), -1) < 0) {
                        continue;  // setuid(3) sends each thread a signal
                }
                for (const pollfd& one : watched) {
                        int type = 0;
                        socklen_t size = sizeof type;
                        if (one.revents == 0 || getsockopt(one.fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
                                continue;
                        }
                        (type == SOCK_STREAM ? serve_stream : serve_datagram)(one.fd, name);
                }
        }
}
