// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/route_plan.h"

#include <algorithm>
#include <tuple>

#include "broker/routes/route.h"

namespace sockbroker {

namespace {

// Policy has refused the others already, but for ports alone; a copy of a policy may be of an older version.
bool has_route(const Binding& binding) {
        return !binding.bare && routes::why_unroutable(binding.prefix).empty();
}

}  // namespace

RoutePlan route_plan_of(const Policy& policy) {
        RoutePlan plan;
        std::uint32_t number = 0;
        for (const auto& service : policy.services) {
                if (!service.local_routes && service.announce == Announce::kNo) {
                        continue;
                }
                for (const auto& binding : service.bindings) {
                        if (has_route(binding) && service.local_routes) {
                                plan.local.push_back(binding.prefix);
                        }
                        // No traffic is called for that nobody would serve.
                        const bool has_clients = count_client_filters(service, binding.prefix.address.family) > 0;
                        if (has_route(binding) && has_clients && service.announce != Announce::kNo) {
                                plan.announced.push_back({binding.prefix, number});
                        }
                }
                if (service.announce != Announce::kNo) {
                        plan.announcing.emplace(service.name, RoutePlan::Announcing{.when = service.announce,
                                                                                    .used = service.used,
                                                                                    .number = number++});
                }
        }
        std::ranges::sort(plan.local);
        plan.local.erase(std::ranges::unique(plan.local).begin(), plan.local.end());
        plan.local.shrink_to_fit();
        const auto key = [](const RoutePlan::Announced& one) { return std::tie(one.prefix, one.service); };
        std::ranges::sort(plan.announced, {}, key);
        const auto twice = std::ranges::unique(plan.announced, {}, key);
        plan.announced.erase(twice.begin(), twice.end());
        plan.announced.shrink_to_fit();
        std::vector<std::size_t> counts(number);
        for (const auto& one : plan.announced) {
                counts[one.service]++;
        }
        for (auto& [name, service] : plan.announcing) {
                service.prefixes = counts[service.number];
        }
        return plan;
}

std::vector<Prefix> RoutePlan::announced_while(const std::vector<bool>& up) const {
        std::vector<Prefix> result;
        for (auto at = announced.begin(); at != announced.end();) {
                bool all = true;
                const auto& prefix = at->prefix;
                for (; at != announced.end() && at->prefix == prefix; at++) {
                        all = all && up[at->service];
                }
                if (all) {
                        result.push_back(prefix);
                }
        }
        return result;
}

}  // namespace sockbroker
