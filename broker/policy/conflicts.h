// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bindings that cannot stand side by side: one claimed by two services, and port ranges of one prefix, source and
// interface that overlap without one holding the other, since neither would then be the more specific. O(n log n) for n
// bindings, each counted once for every source and interface.
#pragma once

#include <string>
#include <string_view>

#include "broker/policy/findings.h"
#include "broker/policy/policy.h"

namespace sockbroker {

// The binding as its line has it: "ListenStream=1.0.0.0/24:53".
[[nodiscard]] std::string written(const Binding& binding);
// The same with what else it asks for: "ListenStream=1.0.0.0/24:53 from 10.0.0.0/8 on eth0".
[[nodiscard]] std::string written(const Binding& binding, const ClientFilter& client);

// A hash of all that makes a binding what it is, with its service: the same in every policy and in every run. Never 0.
[[nodiscard]] std::uint64_t identity_of(const Service& service, const Binding& binding, const ClientFilter& client);

// At most one finding for two bindings of the text, at the place of the later of the two in the text.
void find_conflicts(const Policy& policy, Findings& findings);

}  // namespace sockbroker
