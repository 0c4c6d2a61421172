// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The routes of services: for which prefixes there may be one at all, by text alone. Both sides ask this: policy, so
// that an operator hears of it, and the process that makes routes, so that nobody who speaks to it gets around it.
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/base/net.h"

namespace sockbroker::routes {

enum class Kind : std::uint8_t {
        kLocal = 0,     // the machine takes packets for it: LocalRoutes=
        kAnnounce = 1,  // routing daemons tell others of it: Announce=
};
inline constexpr std::size_t kKinds = 2;

[[nodiscard]] std::string_view to_string(Kind kind);  // "local", "announce"

// A local route for half of all addresses would cut the machine off.
[[nodiscard]] constexpr unsigned shortest_route(Family family) {
        return family == Family::kIpv4 ? 8 : 16;
}

// Why no route is ever made for this prefix, empty: one may be. Host bits that are set count as such a reason.
[[nodiscard]] std::string why_unroutable(const Prefix& prefix);

}  // namespace sockbroker::routes
