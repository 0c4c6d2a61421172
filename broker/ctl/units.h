// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The units of this host, as PID 1 tells anybody.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sockbroker::ctl {

struct Units {
        std::vector<std::string> names;
        std::map<std::string, std::string> aliases;  // to the unit that is meant
};

// Those with a file, and those that are loaded without one. A link of another name is no unit: processes run in what it
// leads to. None: PID 1 cannot be asked.
[[nodiscard]] std::optional<Units> units_that_exist();

}  // namespace sockbroker::ctl
