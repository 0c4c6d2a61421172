// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Removes all routes of a kind where the broker cannot, or does not: announcements go with it, and local routes stay
// unless they are asked for. For `sockbrokerctl unload`, which is root's.
#pragma once

#include <chrono>
#include <string>

#include "broker/base/result.h"
#include "broker/routes/messages.h"
#include "broker/routes/route.h"

namespace sockbroker::routes {

// Speaks to sockbroker-routes as a broker would, and waits for its report. Where nobody listens it removes the routes
// itself, from the network namespace in which it runs.
[[nodiscard]] Result<void> withdraw(const std::string& socket_path, Numbers numbers, Kind kind,
                                    std::chrono::microseconds timeout);

}  // namespace sockbroker::routes
