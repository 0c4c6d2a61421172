// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/route_checks.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include "broker/routes/route.h"

namespace sockbroker {

namespace {

struct Announced {
        const Prefix* prefix;
        const Service* service;
        Where where;
};

std::string route_key_of(const Service& service) {
        return service.local_routes ? "LocalRoutes=yes" : fmt::format("Announce={}", to_string(service.announce));
}

// A prefix that cannot have a route is an error, for the line says something that would never happen. Ports alone have
// no prefix, and stand beside others as a matter of course.
void check_service(const Service& service, Findings& findings) {
        const Binding* bare = nullptr;
        for (const auto& binding : service.bindings) {
                if (binding.bare) {
                        bare = bare == nullptr ? &binding : bare;
                } else if (const auto why = routes::why_unroutable(binding.prefix); !why.empty()) {
                        findings.add(binding.where, Severity::kError, [&] {
                                return fmt::format(
                                        "service {} has {}, and {} can have no route: {}; give this binding to "
                                        "a service without that key",
                                        service.name, route_key_of(service), binding.prefix.to_string(), why);
                        });
                }
        }
        if (bare != nullptr) {
                findings.add(bare->where, Severity::kWarning, [&] {
                        return fmt::format("service {} has {}, but ports alone have no prefix and so no route",
                                           service.name, route_key_of(service));
                });
        }
}

}  // namespace

void check_routes(const Policy& policy, Findings& findings) {
        std::vector<Announced> announced;
        for (const auto& service : policy.services) {
                if (service.local_routes || service.announce != Announce::kNo) {
                        check_service(service, findings);
                }
                if (service.announce != Announce::kNo) {
                        for (const auto& binding : service.bindings) {
                                if (!binding.bare) {
                                        announced.push_back({&binding.prefix, &service, binding.where});
                                }
                        }
                }
        }
        std::ranges::sort(announced, [](const Announced& one, const Announced& other) {
                return std::tie(*one.prefix, one.service->name) < std::tie(*other.prefix, other.service->name);
        });
        for (std::size_t i = 1; i < announced.size(); i++) {
                const auto& before = announced[i - 1];
                const auto& one = announced[i];
                if (*one.prefix == *before.prefix && one.service != before.service) {
                        findings.add(one.where, Severity::kWarning, [&] {
                                return fmt::format(
                                        "{} is announced for {} and for {}: it is withdrawn while either is "
                                        "down or drained",
                                        one.prefix->to_string(), before.service->name, one.service->name);
                        });
                }
        }
}

}  // namespace sockbroker
