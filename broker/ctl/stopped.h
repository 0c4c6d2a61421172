// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Status while no broker runs: what the kernel dispatches by, read from the pins. In the same rows as a broker sends,
// so that they are shown in the same way.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker/ctl/options.h"
#include "broker/ctl/render.h"

namespace sockbroker::ctl {

struct Stopped {
        std::optional<bool> dispatches;  // none: that cannot be seen here
        bool detached = false;           // it does not, although nobody has unloaded it
        bool only_root = false;          // but root could
        std::string why_unknown;         // that, or the services where dispatch goes on; empty: nothing is unknown
        std::vector<Json> services;      // as rows of status
        std::vector<Json> sockets;       // as rows of list
};
[[nodiscard]] Stopped look_at_pins(const Options& options);

// "dispatch goes on with the last rules and sockets", for people.
[[nodiscard]] std::string describe(const Stopped& stopped);

}  // namespace sockbroker::ctl
