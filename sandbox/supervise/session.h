// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The start: the process that becomes the program on one side, the supervisor on the other, and the few messages
// between them until the program is executed. Whatever fails is an error before the program starts.
#pragma once

#include <vector>

#include "broker/client/named_fds.h"
#include "sandbox/supervise/supervisor.h"

namespace sockbroker::supervise {

// Sockets that may take the place of the program's, with their services.
struct Passed {
        std::string service;
        OwnedFd fd;
};

class Session {
public:
        // Forks the supervisor, twice, so that it is nobody's child. It has given up all privilege and confined itself
        // by the time of hand_over().
        [[nodiscard]] static Result<Session> begin(Settings settings, std::vector<Passed> passed);

        // Keeps the descriptor out of the way of those below `first`.
        [[nodiscard]] Result<void> move_above(int first);
        [[nodiscard]] int fd() const { return fd_.get(); }

        // Whether the supervisor may look into this process, by what it is now. EPERM: it may not.
        [[nodiscard]] Result<void> check_access() const;

        // Gives the supervisor the listener of the trap, which this process closes. The last word.
        [[nodiscard]] Result<void> hand_over(OwnedFd listener);

private:
        explicit Session(OwnedFd fd) : fd_(std::move(fd)) {}

        OwnedFd fd_;
};

}  // namespace sockbroker::supervise
