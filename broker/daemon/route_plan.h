// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a policy asks for in routes, made once for each policy, since it may be of a million prefixes. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "broker/base/net.h"
#include "broker/policy/policy.h"

namespace sockbroker {

struct RoutePlan {
        struct Announcing {
                Announce when = Announce::kAny;
                std::array<std::array<bool, 2>, 2> used{};  // as that of the service
                std::uint32_t number = 0;                   // in Announced::service
                std::size_t prefixes = 0;
        };
        struct Announced {
                Prefix prefix;
                std::uint32_t service = 0;
        };

        std::vector<Prefix> local;                                  // sorted, each once
        std::map<std::string, Announcing, std::less<>> announcing;  // by the name of the service
        std::vector<Announced> announced;  // sorted by prefix; one of several services stands for each

        [[nodiscard]] bool empty() const { return local.empty() && announcing.empty(); }
        // Those prefixes all of whose services are up, sorted, each once. `up` by number.
        [[nodiscard]] std::vector<Prefix> announced_while(const std::vector<bool>& up) const;
};

// What has come of it.
struct RouteSum {
        std::uint32_t local = 0, announced = 0;  // that stand
        std::uint32_t refused = 0;
};

[[nodiscard]] RoutePlan route_plan_of(const Policy& policy);

}  // namespace sockbroker
