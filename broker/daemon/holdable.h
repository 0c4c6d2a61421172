// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which registrations are held at all, and what Holds is told of one.
#pragma once

#include "broker/daemon/holds.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

[[nodiscard]] bool may_be_held(const Service& service, const Registration& registration);
[[nodiscard]] Held held_of(const Service& service, const Registration& registration);

}  // namespace sockbroker
