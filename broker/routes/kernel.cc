// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/kernel.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace sockbroker::routes {

namespace {

constexpr std::size_t kBatch = 512;       // messages at a time: as many answers have room in the receive buffer
constexpr std::size_t kMaxMessage = 128;  // of one route
constexpr int kReceiveBuffer = 4 << 20;   // bytes
constexpr std::size_t kReadAtOnce = 65536;

}  // namespace

void KernelRoutes::Close::operator()(mnl_socket* socket) const {
        mnl_socket_close(socket);
}

Result<KernelRoutes> KernelRoutes::open(Numbers numbers) {
        Socket socket(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
        if (socket == nullptr || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) != 0) {
                return fail_errno("cannot open a netlink socket for routes");
        }
        int on = 1;
        // Answers without the request, so that those of a whole batch have room; dumps of one table alone.
        if (mnl_socket_setsockopt(socket.get(), NETLINK_CAP_ACK, &on, sizeof on) != 0 ||
            mnl_socket_setsockopt(socket.get(), NETLINK_GET_STRICT_CHK, &on, sizeof on) != 0) {
                return fail_errno("cannot set up the netlink socket for routes");
        }
        const int size = kReceiveBuffer;
        (void)setsockopt(mnl_socket_get_fd(socket.get()), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        return KernelRoutes(std::move(socket), numbers);
}

std::uint32_t KernelRoutes::port() const {
        return mnl_socket_get_portid(socket_.get());
}

int KernelRoutes::fd() const {
        return mnl_socket_get_fd(socket_.get());
}

// False: the table changed meanwhile, so that some may be missing.
Result<bool> KernelRoutes::dump_once(std::span<const char> request, std::uint32_t sequence, const Take& take) {
        if (send(fd(), request.data(), request.size(), 0) < 0) {
                return fail_errno("cannot ask the kernel for routes");
        }
        std::vector<char> buffer(kReadAtOnce);
        bool whole = true;
        while (true) {
                const auto size = recv(fd(), buffer.data(), buffer.size(), 0);
                if (size < 0 && errno == EINTR) {
                        continue;
                }
                if (size < 0) {
                        return fail_errno("cannot read routes from the kernel");
                }
                int left = static_cast<int>(size);
                for (const auto* one = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(one, left);
                     one = mnl_nlmsg_next(one, &left)) {
                        if (one->nlmsg_seq != sequence) {
                                continue;
                        }
                        whole = whole && (one->nlmsg_flags & NLM_F_DUMP_INTR) == 0;
                        if (one->nlmsg_type != NLMSG_DONE && one->nlmsg_type != NLMSG_ERROR) {
                                take(one);
                                continue;
                        }
                        const int error = mnl_nlmsg_get_payload_len(one) >= sizeof(int)
                                                  ? *static_cast<const int*>(mnl_nlmsg_get_payload(one))
                                                  : 0;
                        // ENOENT: nobody has made that table yet.
                        return error < 0 && error != -ENOENT ? fail(error, "cannot read routes from the kernel")
                                                             : Result<bool>(whole);
                }
        }
}

Result<void> KernelRoutes::dump(std::span<char> request, const Take& take, const std::function<void()>& again) {
        constexpr int kTries = 5;  // of a table that never rests, what is there counts: each change is told
        for (int i = 0; i < kTries; i++) {
                again();
                reinterpret_cast<nlmsghdr*>(request.data())->nlmsg_seq = ++sequence_;
                const auto whole = dump_once(request, sequence_, take);
                if (!whole) {
                        return std::unexpected(whole.error());
                }
                if (*whole) {
                        break;
                }
        }
        return {};
}

Result<std::vector<Prefix>> KernelRoutes::list(Kind kind) {
        std::vector<Prefix> found;
        for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                alignas(nlmsghdr) std::array<char, kMaxMessage> buffer{};
                auto* message = mnl_nlmsg_put_header(buffer.data());
                message->nlmsg_type = RTM_GETROUTE;
                message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
                put_request(message, kind, family, numbers_);
                const auto before = found.size();
                const auto done = dump(
                        {buffer.data(), message->nlmsg_len},
                        [&](const nlmsghdr* one) {
                                if (const auto prefix = own_route(one, kind, numbers_)) {
                                        found.push_back(*prefix);
                                }
                        },
                        [&] { found.resize(before); });
                if (!done) {
                        return std::unexpected(done.error());
                }
        }
        std::ranges::sort(found);
        found.erase(std::ranges::unique(found).begin(), found.end());
        return found;
}

Result<std::vector<Prefix>> KernelRoutes::connected_networks() {
        std::vector<Prefix> found;
        alignas(nlmsghdr) std::array<char, kMaxMessage> buffer{};
        auto* message = mnl_nlmsg_put_header(buffer.data());
        message->nlmsg_type = RTM_GETADDR;
        message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        auto* head = static_cast<ifaddrmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(ifaddrmsg)));
        head->ifa_family = AF_UNSPEC;
        const auto done = dump(
                {buffer.data(), message->nlmsg_len},
                [&](const nlmsghdr* one) {
                        if (const auto network = connected_network(one)) {
                                found.push_back(*network);
                        }
                },
                [&] { found.clear(); });
        if (!done) {
                return std::unexpected(done.error());
        }
        std::ranges::sort(found);
        found.erase(std::ranges::unique(found).begin(), found.end());
        return found;
}

// A batch is one system call, and the kernel is done with it when that returns. Failures are answered by the number of
// the message, the last one always.
Result<void> KernelRoutes::change(std::uint16_t type, std::uint16_t flags, Kind kind, std::span<const Prefix> prefixes,
                                  const Failed& failed) {
        std::vector<char> buffer(kBatch * kMaxMessage);
        std::vector<char> answers(kReadAtOnce);
        while (!prefixes.empty()) {
                const auto batch = prefixes.first(std::min(prefixes.size(), kBatch));
                prefixes = prefixes.subspan(batch.size());
                const auto first = sequence_ + 1;
                std::size_t used = 0;
                for (std::size_t i = 0; i < batch.size(); i++) {
                        auto* message = mnl_nlmsg_put_header(buffer.data() + used);
                        message->nlmsg_type = type;
                        message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags |
                                                                          (i + 1 == batch.size() ? NLM_F_ACK : 0));
                        message->nlmsg_seq = ++sequence_;
                        put_route(message, kind, batch[i], numbers_);
                        used += MNL_ALIGN(message->nlmsg_len);
                }
                if (send(fd(), buffer.data(), used, 0) < 0) {
                        return fail_errno("cannot send routes to the kernel");
                }
                for (bool last = false; !last;) {
                        const auto size = recv(fd(), answers.data(), answers.size(), 0);
                        if (size < 0 && errno == EINTR) {
                                continue;
                        }
                        if (size < 0) {
                                return fail_errno("cannot read the kernel's answers on routes");
                        }
                        int left = static_cast<int>(size);
                        for (const auto* one = reinterpret_cast<const nlmsghdr*>(answers.data());
                             mnl_nlmsg_ok(one, left); one = mnl_nlmsg_next(one, &left)) {
                                const auto at = one->nlmsg_seq - first;
                                if (one->nlmsg_type != NLMSG_ERROR || at >= batch.size() ||
                                    mnl_nlmsg_get_payload_len(one) < sizeof(nlmsgerr)) {
                                        continue;
                                }
                                last = last || at + 1 == batch.size();
                                if (const int error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(one))->error;
                                    error != 0) {
                                        failed(batch[at], -error);
                                }
                        }
                }
        }
        return {};
}

Result<void> KernelRoutes::add(Kind kind, std::span<const Prefix> prefixes, const Failed& failed) {
        return change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, kind, prefixes, failed);
}

Result<void> KernelRoutes::remove(Kind kind, std::span<const Prefix> prefixes, const Failed& failed) {
        return change(RTM_DELROUTE, 0, kind, prefixes, [&](const Prefix& prefix, int errnum) {
                if (errnum != ESRCH && errnum != ENOENT) {
                        failed(prefix, errnum);
                }
        });
}

Result<RouteEvents> RouteEvents::open(Numbers numbers, std::uint32_t own) {
        OwnedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
        sockaddr_nl address{};
        address.nl_family = AF_NETLINK;
        address.nl_groups =
                RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
                return fail_errno("cannot listen to changes of routes");
        }
        return RouteEvents(std::move(fd), numbers, own);
}

void RouteEvents::look_at(const nlmsghdr* message, Seen& seen) const {
        if (message->nlmsg_pid == own_) {
                return;
        }
        switch (message->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_DELLINK:
                // A device that goes down takes its routes with it without a word on IPv4 ones.
                if (mnl_nlmsg_get_payload_len(message) >= sizeof(ifinfomsg) &&
                    static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message))->ifi_index ==
                            static_cast<int>(kLoopback)) {
                        seen.routes = true;
                }
                return;
        case RTM_NEWADDR:
        case RTM_DELADDR:
                seen.addresses = true;
                if (mnl_nlmsg_get_payload_len(message) >= sizeof(ifaddrmsg) &&
                    static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message))->ifa_index == kLoopback) {
                        seen.routes = true;  // with the last address of a family go all routes of it
                }
                return;
        case RTM_NEWROUTE:
        case RTM_DELROUTE:
                if (mnl_nlmsg_get_payload_len(message) >= sizeof(rtmsg)) {
                        const auto number = table_of(message);
                        seen.routes = seen.routes || number == RT_TABLE_LOCAL || number == numbers_.announce_table;
                }
                return;
        default:
                return;
        }
}

RouteEvents::Seen RouteEvents::read() {
        constexpr int kReads = 1024;
        Seen seen;
        alignas(nlmsghdr) std::array<char, kReadAtOnce> buffer{};
        for (int i = 0; i < kReads; i++) {
                const auto size = recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
                if (size < 0 && errno == ENOBUFS) {
                        seen = {.routes = true, .addresses = true};  // some were lost
                } else if (size < 0 && errno != EINTR) {
                        break;
                } else if (size > 0) {
                        int left = static_cast<int>(size);
                        for (const auto* one = reinterpret_cast<const nlmsghdr*>(buffer.data());
                             mnl_nlmsg_ok(one, left); one = mnl_nlmsg_next(one, &left)) {
                                look_at(one, seen);
                        }
                }
        }
        return seen;
}

}  // namespace sockbroker::routes
