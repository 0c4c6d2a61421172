// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sk_lookup programs of others in this network namespace: all run for each lookup, in the order in which they were
// attached, and the last one that chooses a socket wins.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/base/result.h"

namespace sockbroker {

struct OtherProgram {
        std::uint32_t id = 0;
        std::string name;
        bool before = false;  // ours
};

// Needs CAP_SYS_ADMIN, and the right to open what is pinned in `pin_dir`.
[[nodiscard]] Result<std::vector<OtherProgram>> other_programs(const std::string& pin_dir);

}  // namespace sockbroker
