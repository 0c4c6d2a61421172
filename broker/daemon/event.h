// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sd-event objects with an owner. An I/O handler that returns a negative value is switched off by sd-event for good:
// handlers here always return 0.
#pragma once

#include <systemd/sd-event.h>

#include <memory>

namespace sockbroker {

struct FreeSource {
        void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using OwnedSource = std::unique_ptr<sd_event_source, FreeSource>;

struct FreeEvent {
        void operator()(sd_event* event) const { sd_event_unref(event); }
};
using OwnedEvent = std::unique_ptr<sd_event, FreeEvent>;

}  // namespace sockbroker
