// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What LocalRoutes= and Announce= ask for, as far as the text alone can tell: prefixes for which no route is made, and
// services that announce the same one. Pure.
#pragma once

#include "broker/policy/findings.h"
#include "broker/policy/policy.h"

namespace sockbroker {

void check_routes(const Policy& policy, Findings& findings);

}  // namespace sockbroker
