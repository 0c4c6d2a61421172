// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which registrations are held at all, and what Holds is told of one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/holds/holds.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

[[nodiscard]] bool may_be_held(const Service& service, const Registration& registration);
// Why the wait of one that is held ends where its service becomes this; empty: it goes on. `now`: CLOCK_MONOTONIC.
[[nodiscard]] std::string_view end_of_hold(const Service& service, const Registration& registration,
                                           std::int64_t now_usec);
[[nodiscard]] Held held_of(const Service& service, const Registration& registration);

inline constexpr std::int64_t kUsec = 1'000'000;       // of a second
[[nodiscard]] std::string seconds(std::int64_t usec);  // "20 s", "0.500 s"

}  // namespace sockbroker
