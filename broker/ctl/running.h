// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the broker's unit runs. A connection to its socket would start it, and who only looks must not.
#pragma once

#include <string>

#include "broker/ctl/options.h"

namespace sockbroker::ctl {

// True only where systemd would start it for a connection: it knows the unit, and says that it is down.
[[nodiscard]] bool is_down_by_systemd(const Options& options);

// True where systemd is starting it and it has not said yet that it serves: also between two starts that fail.
[[nodiscard]] bool is_not_up_by_systemd(const Options& options);

[[nodiscard]] std::string unit_of_broker(const Options& options);

}  // namespace sockbroker::ctl
