// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which registrations are held at all, and what Holds is told of one.
#pragma once

#include <cstdint>
#include <string>

#include "broker/holds/holds.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

[[nodiscard]] bool may_be_held(const Service& service, const Registration& registration);
[[nodiscard]] Held held_of(const Service& service, const Registration& registration);

inline constexpr std::int64_t kUsec = 1'000'000;       // of a second
[[nodiscard]] std::string seconds(std::int64_t usec);  // "20 s", "0.500 s"

}  // namespace sockbroker
