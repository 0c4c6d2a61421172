// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the rules of a policy can be what the kernel is told: what `verify` asks before any broker does, with the
// compiler of the broker. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "broker/policy/decide.h"
#include "broker/policy/diagnostic.h"
#include "broker/policy/policy.h"

namespace sockbroker {

// Errors of the compiler at the line that they are about, as a broker with `max_bindings` would have them. All
// interfaces count as if they were there: what a policy may say depends on its text and not on the host, and one that
// was taken stays so when an interface comes. `policy` keeps to its limits.
[[nodiscard]] std::vector<Diagnostic> check_rules(const Policy& policy, std::uint32_t max_bindings);

// Whether all interfaces of the policy are there, so that to compile its rules for the kernel checks as much.
[[nodiscard]] bool has_all_interfaces(const Policy& policy, const Interfaces& interfaces);

}  // namespace sockbroker
