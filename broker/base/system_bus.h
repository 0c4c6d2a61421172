// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A connection to the system bus.
#pragma once

#include <systemd/sd-bus.h>

namespace sockbroker {

// As sd_bus_open_system(3), but no descriptor comes along with a message. Everybody may send signals to any connection,
// with what sleeps when it is closed in them. Returns a negative errno where it fails; `bus` is the caller's anyhow.
[[nodiscard]] int open_system_bus(sd_bus** bus);

}  // namespace sockbroker
