// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/links.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "broker/base/capabilities.h"
#include "broker/daemon/places.h"
#include "broker/socket/facts.h"

namespace sockbroker {

namespace {

constexpr std::size_t kSockets = 2;
constexpr std::size_t kRoom = CMSG_SPACE(kSockets * sizeof(int));

// -1: PID 1 has passed none.
int passed_links() {
        char** names = nullptr;
        const int count = sd_listen_fds_with_names(0, &names);
        int found = -1;
        for (int i = 0; i < count; i++) {
                found = names[i] == std::string(kLinksName) ? SD_LISTEN_FDS_START + i : found;
                std::free(names[i]);
        }
        std::free(static_cast<void*>(names));
        return found;
}

template <class T>
T option_or(int fd, int option, T otherwise) {
        T value{};
        socklen_t size = sizeof value;
        return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : otherwise;
}

bool is_route_netlink(int fd) {
        return option_or(fd, SO_DOMAIN, -1) == AF_NETLINK && option_or(fd, SO_PROTOCOL, -1) == NETLINK_ROUTE;
}

// The last pair is that of the start at hand. False: there is no more.
bool receive_pair(int from, NetnsSockets& sockets) {
        char byte = 0;
        alignas(cmsghdr) std::array<char, kRoom> control{};
        iovec vector{.iov_base = &byte, .iov_len = 1};
        msghdr message{
                .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
        if (recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) {
                return errno == EINTR;
        }
        const cmsghdr* head = CMSG_FIRSTHDR(&message);
        if (head == nullptr || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) {
                return true;
        }
        std::array<OwnedFd, kSockets> pair;
        const std::size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count && i < kSockets; i++) {
                int fd = -1;
                std::memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
                pair.at(i).reset(fd);
        }
        if (is_route_netlink(pair[0].get()) && is_route_netlink(pair[1].get())) {
                sockets.watch = std::move(pair[0]);
                sockets.ask = std::move(pair[1]);
        }
        return true;
}

Result<OwnedFd> make_netlink(unsigned groups, int flags) {
        OwnedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE));
        sockaddr_nl address{};
        address.nl_family = AF_NETLINK;
        address.nl_groups = groups;
        // The kernel answers at once; nobody is to wait for ever where it does not.
        constexpr timeval kPatience{.tv_sec = 1, .tv_usec = 0};
        if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience) != 0) {
                return fail_errno("cannot make a socket to ask for network interfaces");
        }
        return fd;
}

Result<void> send_pair(const std::string& path, const std::array<int, kSockets>& pair) {
        sockaddr_un address{.sun_family = AF_UNIX};
        if (path.size() >= sizeof address.sun_path) {
                return fail(fmt::format("socket path {} is too long", path));
        }
        path.copy(address.sun_path, path.size());
        char byte = 0;
        alignas(cmsghdr) std::array<char, kRoom> control{};
        iovec vector{.iov_base = &byte, .iov_len = 1};
        msghdr message{.msg_name = &address,
                       .msg_namelen = sizeof address,
                       .msg_iov = &vector,
                       .msg_iovlen = 1,
                       .msg_control = control.data(),
                       .msg_controllen = control.size()};
        cmsghdr* head = CMSG_FIRSTHDR(&message);
        *head = {.cmsg_len = CMSG_LEN(sizeof pair), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        std::memcpy(CMSG_DATA(head), pair.data(), sizeof pair);
        const OwnedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        // No room: a broker serves, and has its own.
        if (!fd || (sendmsg(fd.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)) {
                return fail_errno(fmt::format("cannot leave sockets for the broker in {}", path));
        }
        return {};
}

}  // namespace

Result<void> run_links(const DaemonOptions& options) {
        if (auto kept = keep_capabilities({}); !kept) {
                return kept;
        }
        if (auto checked = check_netns(options.netns); !checked) {
                return checked;
        }
        const auto watch = make_netlink(RTMGRP_LINK, SOCK_NONBLOCK);
        const auto ask = make_netlink(0, 0);
        if (!watch || !ask) {
                return std::unexpected((watch ? ask : watch).error());
        }
        return send_pair(options.runtime_dir + "/" + kLinksName, {watch->get(), ask->get()});
}

Result<NetnsSockets> take_netns_sockets() {
        NetnsSockets sockets;
        if (const int from = passed_links(); from >= 0) {
                while (receive_pair(from, sockets)) {
                }
                if (!sockets.ask) {
                        return fail(
                                "there is no way to see the network interfaces: journalctl -u "
                                "sockbrokerd-links.service says why, systemctl restart sockbrokerd tries again");
                }
                sockets.cookie = option_or<std::uint64_t>(sockets.ask.get(), SO_NETNS_COOKIE, 0);
        }
        if (sockets.cookie == 0) {
                const auto own = own_netns_cookie();
                if (!own) {
                        return std::unexpected(own.error());
                }
                sockets.cookie = *own;
        }
        return sockets;
}

}  // namespace sockbroker
