// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sd-event objects with an owner. An I/O handler that returns a negative value is switched off by sd-event for good:
// handlers here always return 0.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>
#include <memory>

namespace sockbroker {

// The priority of sources that work for peers: the more of the loop's time they have had, the later (Turns::level()).
inline constexpr std::int64_t kAhead = SD_EVENT_PRIORITY_NORMAL;
inline constexpr std::int64_t kBehind = kAhead + 4;  // of a queue that never ends

struct FreeSource {
        void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using OwnedSource = std::unique_ptr<sd_event_source, FreeSource>;

struct FreeEvent {
        void operator()(sd_event* event) const { sd_event_unref(event); }
};
using OwnedEvent = std::unique_ptr<sd_event, FreeEvent>;

}  // namespace sockbroker
