// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Checks of a policy as a whole, once every line of it was read: limits, and what a service lacks. Pure. Bindings are
// counted as the kernel will have them, without making them.
#pragma once

#include <cstddef>

#include "broker/policy/findings.h"
#include "broker/policy/parse.h"
#include "broker/policy/policy.h"

namespace sockbroker {

inline constexpr std::size_t kMaxUnitPorts = 32;  // of UDP, that a unit can be granted by UdpReply=original

// A warning for each value of Source= or Interface= that its service has already, which is then left out.
void drop_repeated_matches(Policy& policy, Findings& findings);

// UdpReply=original in a service for which it cannot work, or with more ports than a unit can have.
void check_udp_replies(const Policy& policy, Findings& findings);

// Services that admit nobody, receive nothing, or have a family that no client can match.
void check_services(const Policy& policy, Findings& findings);

// What is beyond the limits, and what would be beyond those of the next start. False: Source= and Interface= make more
// bindings of those in the text than there may be.
[[nodiscard]] bool check_limits(const Policy& policy, const PolicyLimits& limits, const PolicyLimits& configured,
                                Findings& findings);

}  // namespace sockbroker
