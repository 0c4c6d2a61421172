// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether packets to an address end on this host: dispatch decides nothing else. Asks by rtnetlink(7), which needs no
// privilege, in the caller's network namespace.
#pragma once

#include <cstdint>
#include <string>

#include "broker/base/net.h"
#include "broker/base/result.h"

namespace sockbroker::ctl {

struct Route {
        bool local = false;
        std::string why_not;  // "it is routed elsewhere", for people; empty where it is local
        bool never = false;   // and no route can change that
};
[[nodiscard]] Result<Route> route_to(const Address& address);

// A number that no other network namespace of this boot has (SO_NETNS_COOKIE).
[[nodiscard]] Result<std::uint64_t> netns_cookie_here();

}  // namespace sockbroker::ctl
