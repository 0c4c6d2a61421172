// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The door from inside: accepts connections, passes a duplicate of each to the core, and keeps its own, so that no
// close(2) in the core is the last. It reads nothing that a peer sends. A flood costs the door's time, not the core's:
// who has too many connections waits here, or is refused, and who has left already is not even counted.
#pragma once

#include <cstddef>

#include "broker/hands/wire.h"

namespace sockbroker::hands {

// Returns when the core is gone. Descriptors have their numbers already (wire.h), its filter is installed. `labels`:
// kLabels is one of them.
void run_door(std::size_t max_fds, ClosedByDoor& closed, bool labels);

}  // namespace sockbroker::hands
