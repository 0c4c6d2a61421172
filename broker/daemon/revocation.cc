// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/revocation.h"

#include <algorithm>

#include "broker/daemon/rows.h"
#include "broker/policy/decide.h"

namespace sockbroker {

std::string_view why_revoked(const Policy& policy, const std::string& service, const Registration& registration,
                             const Accounts& accounts) {
        const auto* found = policy.find(service);
        if (found == nullptr) {
                return "policy has no such service any more";
        }
        if (!stays_admitted(*found, registration.registrant, accounts)) {
                return "policy does not admit it any more";
        }
        const bool used = std::ranges::any_of(found->bindings, [&](const Binding& binding) {
                return registration.serves_in(binding.protocol, binding.prefix.address.family);
        });
        return used ? "" : "the service has no binding of its protocol and family any more";
}

std::string rows_of_revoked(const Policy& policy, const Registry& registry, const Accounts& accounts) {
        std::string rows;
        for (const auto& service : registry.services()) {
                const auto registrations = registry.registrations(service);
                const auto distribution = registry.distribution(service);
                for (const auto& one : registrations) {
                        if (const auto why = why_revoked(policy, service, one, accounts); !why.empty()) {
                                rows += gone_socket_line(service, one, is_live(registrations, distribution, one), why);
                        }
                }
        }
        return rows;
}

}  // namespace sockbroker
