// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The program's first process, when it has ended and nobody has waited for it yet. Before kernel 6.11 it keeps the
// filter, and with it the supervisor, until then; and who reads to the end what the program writes to standard error,
// as `$(program 2>&1)` in a shell does, waits for the supervisor first.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker::supervise {

// Whether a process that lives may have a filter of this process's supervision: one of the same user, with filters,
// that began no earlier than this one. More may be said to live than do.
[[nodiscard]] bool anybody_lives();

class Zombie {
public:
        explicit Zombie(pid_t program);

        // To be polled, beside others.
        void add_to(std::vector<pollfd>& entries) const;
        // When to look again.
        [[nodiscard]] std::chrono::steady_clock::time_point next() const { return next_; }

        // Whether the program has ended and nothing of it lives.
        [[nodiscard]] bool is_alone();

private:
        using Time = std::chrono::steady_clock::time_point;
        pid_t pid_;
        OwnedFd pidfd_;  // none: it has ended
        Time next_ = Time::max();
};

}  // namespace sockbroker::supervise
