// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where no broker runs: withdraws all announcements. For `sockbrokerctl unload`, which is root's.
#pragma once

#include <chrono>
#include <string>

#include "broker/base/result.h"

namespace sockbroker::routes {

// Speaks to sockbroker-routes as a broker would, and waits for its report. Where nobody listens there is nothing to do.
[[nodiscard]] Result<void> withdraw_announcements(const std::string& socket_path, std::chrono::microseconds timeout);

}  // namespace sockbroker::routes
