// SPDX-License-Identifier: LGPL-2.1-or-later
//
// For who was told foreign-netns: in which network namespace the asking process is, and whose broker that is.
#pragma once

#include <string>

namespace sockbroker {

// The name by which `ip netns` knows the network namespace of the calling process; empty: it has none there.
[[nodiscard]] std::string own_netns_name();

// What to do about foreign-netns from here, for people; empty: nothing is known.
[[nodiscard]] std::string foreign_netns_hint();

}  // namespace sockbroker
