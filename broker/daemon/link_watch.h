// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Tells when network interfaces may have come, gone or changed their names (rtnetlink(7), group LINK). Reads no word of
// what the kernel says: that there was something is enough to look the names up again. Many events are one call, and
// calls take a tenth of the loop's time at most, however fast interfaces come and go.
#pragma once

#include <functional>
#include <memory>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/base/turns.h"

namespace sockbroker {

class LinkWatch {
public:
        // `changed` says how long what it began takes, in microseconds. Needs no privilege. `netlink`: bound to the
        // group, in the network namespace that is watched; none: that of the caller.
        [[nodiscard]] static Result<std::unique_ptr<LinkWatch>> open(sd_event* event, OwnedFd netlink,
                                                                     std::function<std::uint64_t()> changed);

private:
        LinkWatch(OwnedFd fd, std::function<std::uint64_t()> changed)
                : fd_(std::move(fd)), changed_(std::move(changed)) {}
        static int on_event(sd_event_source* source, int fd, std::uint32_t events, void* userdata);
        static int on_timer(sd_event_source* source, std::uint64_t usec, void* userdata);

        OwnedFd fd_;
        std::function<std::uint64_t()> changed_;
        std::uint64_t rest_usec_ = 0;  // no call before this time of CLOCK_MONOTONIC
        OwnedSource timer_;
        OwnedSource readable_;
};

}  // namespace sockbroker
