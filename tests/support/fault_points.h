// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a test and the process that is to die share, see fault_points.cc. tests/harness/faults.py knows the layout.
#pragma once

#include <array>
#include <cstdint>

namespace sockbroker {

struct FaultPoints {
        std::uint32_t armed = 0;
        std::uint32_t kill_at = 0;                       // before this one, from 1; 0: none
        std::uint32_t count = 0;                         // passed since it was armed
        std::uint32_t waits = 0;                         // it does not die, but waits there until this is 0
        std::array<std::array<char, 48>, 1024> names{};  // what was to be changed at each

        // Of this process and its children.
        static FaultPoints& here();
};

}  // namespace sockbroker
