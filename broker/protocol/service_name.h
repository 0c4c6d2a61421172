// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a service may be called.
#pragma once

#include <cstddef>
#include <string_view>

namespace sockbroker {

inline constexpr std::size_t kMaxServiceName = 40;  // bytes

// [A-Za-z0-9._-]{1,40}
[[nodiscard]] bool valid_service_name(std::string_view name);

}  // namespace sockbroker
