// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/link_watch.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>

namespace sockbroker {

namespace {

constexpr std::uint64_t kSettleUsec = 50'000;  // an interface is made, renamed and set up in several steps
constexpr std::uint64_t kRestFactor = 9;
constexpr int kReadsPerTurn = 256;

}  // namespace

Result<std::unique_ptr<LinkWatch>> LinkWatch::open(sd_event* event, OwnedFd netlink,
                                                   std::function<std::uint64_t()> changed) {
        OwnedFd fd = std::move(netlink);
        if (!fd) {
                fd.reset(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
                sockaddr_nl address{};
                address.nl_family = AF_NETLINK;
                address.nl_groups = RTMGRP_LINK;
                if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
                        return fail_errno("cannot watch the network interfaces");
                }
        }
        std::unique_ptr<LinkWatch> watch(new LinkWatch(std::move(fd), std::move(changed)));
        sd_event_source* source = nullptr;
        if (const int r = sd_event_add_time(event, &source, CLOCK_MONOTONIC, UINT64_MAX, 1'000, on_timer, watch.get());
            r < 0) {
                return fail(r, "cannot make a timer for changes of network interfaces");
        }
        watch->timer_.reset(source);
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (const int r = sd_event_add_io(event, &source, watch->fd_.get(), EPOLLIN, on_event, watch.get()); r < 0) {
                return fail(r, "cannot watch the network interfaces");
        }
        watch->readable_.reset(source);
        return watch;
}

int LinkWatch::on_event(sd_event_source* source, int fd, std::uint32_t, void* userdata) {
        auto* watch = static_cast<LinkWatch*>(userdata);
        std::array<char, 1> byte{};
        // Messages are cut to a byte and thrown away. ENOBUFS: some were lost, which says no less.
        for (int i = 0; i < kReadsPerTurn; i++) {
                if (recv(fd, byte.data(), byte.size(), MSG_DONTWAIT) < 0 && errno != ENOBUFS && errno != EINTR) {
                        break;
                }
        }
        int armed = SD_EVENT_OFF;
        std::uint64_t now = 0;
        if (sd_event_source_get_enabled(watch->timer_.get(), &armed) >= 0 && armed == SD_EVENT_OFF &&
            sd_event_now(sd_event_source_get_event(source), CLOCK_MONOTONIC, &now) >= 0) {
                sd_event_source_set_time(watch->timer_.get(), std::max(now + kSettleUsec, watch->rest_usec_));
                sd_event_source_set_enabled(watch->timer_.get(), SD_EVENT_ONESHOT);
        }
        return 0;
}

int LinkWatch::on_timer(sd_event_source*, std::uint64_t, void* userdata) {
        auto* watch = static_cast<LinkWatch*>(userdata);
        const auto now = [] {
                timespec time{};
                clock_gettime(CLOCK_MONOTONIC, &time);
                return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
                       static_cast<std::uint64_t>(time.tv_nsec) / 1'000;
        };
        const auto began = now();
        std::uint64_t takes = 0;  // also for want of memory; the next event comes here again
        (void)guarded([&] { takes = watch->changed_(); });
        const auto ended = now();
        watch->rest_usec_ = ended + std::max(takes, ended - began) * kRestFactor;
        return 0;
}

}  // namespace sockbroker
