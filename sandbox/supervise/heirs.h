// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Processes that sockets were registered for, and who has the sockets when such a process has ended: a daemon's child,
// the next master of an upgrade. So the broker knows the process that serves, and the clock of HoldSec= does not begin
// while there is one. Bounded: of too many, the sockets and processes registered last are watched.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker::supervise {

class Heirs {
public:
        // So many sockets, of kMostProcesses.
        explicit Heirs(std::size_t capacity) : capacity_(capacity) {}
        static constexpr std::size_t kMostProcesses = 256;  // a descriptor each

        // The socket of `fd` is registered for the process.
        void watch(pid_t pid, std::uint64_t cookie, int fd);
        void forget(std::uint64_t cookie);

        // To be polled, beside others.
        void add_to(std::vector<pollfd>& entries) const;
        // Notes who has ended.
        void note_ended();
        // Whether a process has ended whose sockets may have an heir.
        [[nodiscard]] bool any() const { return !orphans_.empty(); }

        struct Heir {
                std::uint64_t cookie;
                pid_t pid;
                int number;  // a descriptor of that process
        };
        // Who has the sockets of those that have ended: of several the one with the lowest pid, and its lowest
        // descriptor, since proc(5) is read in that order (fs/proc/base.c, next_tgid()). Looks at a part of all
        // descriptors, and goes on there when it is called again. A socket that nobody has is forgotten when all were
        // looked at, and one that is returned here is looked for again, unless watch() or forget() was called for it.
        [[nodiscard]] std::vector<Heir> find();

private:
        struct Watched {
                std::uint64_t cookie = 0;
                std::uint64_t inode = 0;
                pid_t pid = 0;
                bool sought = false;  // by the search that goes on
        };
        struct Place {
                pid_t pid = 0;
                int number = 0;
        };
        void make_room();

        std::size_t capacity_;
        std::vector<Watched> watched_;  // the oldest first
        std::vector<Watched> orphans_;  // whose process has ended
        std::map<pid_t, OwnedFd> processes_;
        bool searches_ = false;
        Place next_;  // where the search goes on
};

}  // namespace sockbroker::supervise
