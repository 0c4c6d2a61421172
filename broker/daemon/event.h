// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sd-event objects with an owner. An I/O handler that returns a negative value is switched off by sd-event for good:
// handlers here always return 0.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>
#include <memory>

namespace sockbroker {

// Of sources that work for somebody who has had more than a share: after all that are ready at the normal priority.
inline constexpr std::int64_t kAhead = SD_EVENT_PRIORITY_NORMAL;
inline constexpr std::int64_t kBehind = kAhead + 10;

struct FreeSource {
        void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using OwnedSource = std::unique_ptr<sd_event_source, FreeSource>;

struct FreeEvent {
        void operator()(sd_event* event) const { sd_event_unref(event); }
};
using OwnedEvent = std::unique_ptr<sd_event, FreeEvent>;

}  // namespace sockbroker
