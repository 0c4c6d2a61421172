// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What /proc says of a process: only of use to whoever makes sure that it is the same process still.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace sockbroker {

// What tells one process of a number from its successor.
struct Incarnation {
        std::uint64_t start_ticks = 0;  // since boot
        uid_t uid = 0;                  // real

        bool operator==(const Incarnation&) const = default;
};

// Of the process whose directory in /proc this is.
[[nodiscard]] std::optional<Incarnation> read_incarnation(int process);

// Whether a process of this start existed at `sent_usec`. A message from the future means that the clock was set
// back since, and nothing can be said; one of unknown time (0) is before every start. Ticks are rounded down, so that a
// process which starts and sends within one tick (10 ms) is believed; the whole pid space would have to be used up in
// that time to abuse it.
[[nodiscard]] bool older_than(const Incarnation& process, std::int64_t sent_usec);

// CLOCK_BOOTTIME, rounded down to ticks (10 ms).
[[nodiscard]] std::int64_t start_usec(const Incarnation& process);

// For how long this machine was suspended since it booted: CLOCK_BOOTTIME counts that, CLOCK_MONOTONIC does not.
[[nodiscard]] std::int64_t suspended_usec();

}  // namespace sockbroker
