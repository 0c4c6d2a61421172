// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the broker's unit runs. A connection to its socket would start it, and who only looks must not.
#pragma once

#include <chrono>
#include <string>

#include "broker/ctl/options.h"

namespace sockbroker::ctl {

// True only where systemd would start it for a connection: it knows the unit, and says that it is down. A unit that is
// being stopped is waited for, unless it is to start again; one that has not ended by then counts as down.
[[nodiscard]] bool is_down_by_systemd(const Options& options, std::chrono::milliseconds patience);

// True where systemd is starting it and it has not said yet that it serves: also between two starts that fail.
[[nodiscard]] bool is_not_up_by_systemd(const Options& options);

[[nodiscard]] std::string unit_of_broker(const Options& options);

// After a request by which the broker ends: until systemd knows of its end, so that what comes next does not start it
// again, or for so long. Returns at once where systemd does not run it.
void await_end_by_systemd(const Options& options, std::chrono::milliseconds patience);

}  // namespace sockbroker::ctl
