// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the system manager says of a unit, and what that means for the sockets which it registered. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/holds/socket_unit.h"

namespace sockbroker {

// Properties of org.freedesktop.systemd1.Unit; times are of CLOCK_MONOTONIC, in microseconds, 0: never.
struct UnitState {
        std::string active;                     // ActiveState: "active", "inactive", "failed" ...
        std::string sub;                        // SubState
        bool has_job = false;                   // Job: one waits or runs
        std::int64_t began_usec = 0;            // InactiveExitTimestampMonotonic: when this activation of it began
        std::int64_t ended_usec = 0;            // ActiveExitTimestampMonotonic: when it was active for the last time
        std::vector<std::string> triggered_by;  // TriggeredBy: its .socket units
        std::vector<std::string> triggers;      // Triggers, of a .socket unit
        std::vector<Listening> listens;         // Listen, of a .socket unit, where that was asked for
};

enum class Presence : std::uint8_t {
        kThere,    // the activation in which the socket was registered goes on
        kGone,     // it ended; the next one may come
        kStopped,  // it ended and none is to come: a stop on purpose
};

// `registered_usec`: CLOCK_MONOTONIC, when the socket was registered.
[[nodiscard]] Presence presence_of(const UnitState& state, std::int64_t registered_usec);

}  // namespace sockbroker
