// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What dispatches while no broker runs, read from the pins alone: nothing is loaded, taken up or changed. Needs the
// right to open them, which root and the broker's user have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"

namespace sockbroker {

struct PinnedSocket {
        Registrant registrant;
        bool live = false;  // serves; otherwise it is draining, or held
};

struct PinnedService {
        std::string name;
        ServiceCounters counters;
        std::vector<PinnedSocket> sockets;
};

enum class PinnedLink : std::uint8_t {
        kNone,      // as after unload
        kDetached,  // the pin is there and attached to nothing: somebody detached it, or its namespace is gone
        kAttached,
};
// Errors: that cannot be seen.
[[nodiscard]] Result<PinnedLink> look_at_link(const std::string& pin_dir);

// Errors: a map is missing, or they have another layout than this build, as after an upgrade whose broker did not
// start.
[[nodiscard]] Result<std::vector<PinnedService>> read_pins(const std::string& pin_dir);

}  // namespace sockbroker
