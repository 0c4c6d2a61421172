// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Time spans as systemd.time(7) has them: "30", "2min 500ms", "1.5h", "infinity". Pure.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

inline constexpr std::chrono::microseconds kForever = std::chrono::microseconds::max();

// A number without unit means seconds. kForever for "infinity", and for what would not fit.
[[nodiscard]] Result<std::chrono::microseconds> parse_time_span(std::string_view text);

}  // namespace sockbroker
