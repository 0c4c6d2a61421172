// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Withdraws all announcements where the broker cannot. For `sockbrokerctl unload`, which is root's.
#pragma once

#include <chrono>
#include <string>

#include "broker/base/result.h"
#include "broker/routes/messages.h"

namespace sockbroker::routes {

// Speaks to sockbroker-routes as a broker would, and waits for its report. Where nobody listens it removes the routes
// itself, from the network namespace in which it runs.
[[nodiscard]] Result<void> withdraw_announcements(const std::string& socket_path, Numbers numbers,
                                                  std::chrono::microseconds timeout);

}  // namespace sockbroker::routes
