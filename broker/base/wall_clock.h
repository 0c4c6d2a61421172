// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The time for people.
#pragma once

#include <chrono>
#include <cstdint>

namespace sockbroker {

// Microseconds since the epoch.
[[nodiscard]] inline std::int64_t wall_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace sockbroker
