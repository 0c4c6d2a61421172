// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who is asking, as the kernel's credentials of the message say: pid, real uid and gid, and the system unit.
// Never from connect-time credentials and never from the text.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <string>

#include "broker/protocol/message.h"
#include "broker/protocol/result_code.h"

namespace sockbroker {

struct Peer {
        pid_t pid = 0;
        uid_t uid = 0;
        gid_t gid = 0;
        std::string unit;  // the first unit below the slices, empty: none, or not to be trusted
        // account_hash() the names of User= and Group= by which policy admitted it; 0: by a number, or by none. Known
        // with the verdict.
        std::uint64_t user_name = 0;
        std::uint64_t group_name = 0;

        [[nodiscard]] std::string to_string() const;  // "pid 12, uid 1000, unit resolver.service"
};

// Refuses (not-permitted) messages without credentials, pid 0 and the overflow uid. With a pidfd the unit is read
// from /proc and trusted only if the process still lives afterwards; without one the process must be older than the
// message and its real uid must fit. A sender that is gone has no unit.
[[nodiscard]] std::expected<Peer, Refusal> identify(const Message& message);

// The same without a look at its unit.
[[nodiscard]] std::expected<Peer, Refusal> credentials_of(const Message& message);

// The process that a registration is of. Neither a pidfd nor ended: nobody can tell.
struct Process {
        OwnedFd pidfd;
        bool ended = false;
};

// The process of this pid that was there at `registered_usec` (CLOCK_MONOTONIC, microseconds), whoever it has become
// since.
[[nodiscard]] Process open_process(pid_t pid, std::int64_t registered_usec);

}  // namespace sockbroker
