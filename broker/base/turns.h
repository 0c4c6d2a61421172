// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whose turn it is in the event loop.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>

#include "broker/base/event.h"

namespace sockbroker {

// The priority of sources that work for peers: the more of the loop's time they have had, the later
// (FairScheduler::level()).
inline constexpr std::int64_t kAhead = SD_EVENT_PRIORITY_NORMAL;
inline constexpr std::int64_t kBehind = kAhead + 4;  // of a queue that never ends

}  // namespace sockbroker
