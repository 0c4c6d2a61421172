// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Processes that sockets were registered for, and who has the sockets when such a process has ended: a daemon's child,
// the next master of an upgrade. So the broker knows the process that serves, and the clock of HoldSec= does not begin
// while there is one. Bounded: of many sockets the ones registered last are watched.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker::supervise {

class Heirs {
public:
        // The socket of `fd` is registered for the process.
        void watch(pid_t pid, std::uint64_t cookie, int fd);

        // To be polled, beside others.
        void add_to(std::vector<pollfd>& entries) const;
        // Notes who has ended. Whether anybody has, and is not dealt with yet.
        bool note_ended();

        // Once for all that have ended: each socket with a process that has it, by a descriptor of that process.
        // Sockets that nobody has are forgotten. The callee watches again.
        using Found = std::function<void(std::uint64_t cookie, pid_t pid, int number)>;
        void find(const Found& found);

private:
        struct Watched {
                std::uint64_t cookie = 0;
                std::uint64_t inode = 0;
                OwnedFd pidfd;  // none: the process has ended
        };
        std::vector<Watched> watched_;  // the oldest first
};

}  // namespace sockbroker::supervise
