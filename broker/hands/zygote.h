// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The process that forks all hands, as the core sees it. It is made before the core has opened anything, so that no
// hand has anything but what it is given. Without it no hand can be replaced: its end is the end of the core.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/hands/wire.h"

namespace sockbroker::hands {

class Zygote {
public:
        struct Hooks {
                // It has closed its own copies of what the child was given. pid 0: it could not fork, errnum says why.
                std::function<void(std::uint32_t child, pid_t pid, int errnum)> forked;
                std::function<void(std::uint32_t child)> exited;  // and is reaped
                std::function<void()> died;                       // the zygote itself
        };

        // The very first thing of the process: it inherits what is open, and closes all of it. Waits until it has.
        // Hands take sockets of the network namespace of this cookie only.
        [[nodiscard]] static Result<std::unique_ptr<Zygote>> start(std::uint64_t netns_cookie);

        // What Landlock answered where this kernel has none of it; 0: the hands have no file.
        [[nodiscard]] int missing_landlock() const { return missing_landlock_; }

        [[nodiscard]] Result<void> watch(sd_event* event, Hooks hooks);

        // fds: number kAnswers + N of the child, -1: it has none. Borrowed; they are on their way when this returns.
        // The result is an errno.
        [[nodiscard]] int fork(std::uint32_t child, Role role, std::span<const int> fds,
                               bool for_the_door = false) const;
        void kill(std::uint32_t child) const;

private:
        explicit Zygote(OwnedFd socket, int missing_landlock)
                : socket_(std::move(socket)), missing_landlock_(missing_landlock) {}
        void receive();

        OwnedFd socket_;
        int missing_landlock_;
        Hooks hooks_;
        OwnedSource source_;
};

}  // namespace sockbroker::hands
