// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/revocation.h"

#include "broker/base/event.h"
#include "broker/daemon/rows.h"
#include "broker/holds/holdable.h"

namespace sockbroker {

void Revocation::look_up(const std::string& service) {
        admitted_.reset();
        found_ = policy_.find(service);
        if (found_ != nullptr) {
                admitted_.emplace(*found_, accounts_);
        }
        service_ = service;
}

std::string_view Revocation::why(const std::string& service, const Registration& registration) {
        if (service_ != service) {
                look_up(service);
        }
        if (!admitted_) {
                return "policy has no such service any more";
        }
        if (!admitted_->admits(registration.registrant)) {
                return "policy does not admit it any more";
        }
        const auto& used = found_->used[static_cast<std::size_t>(registration.protocol)];
        const bool any = (registration.serves.ipv4 && used[static_cast<std::size_t>(Family::kIpv4)]) ||
                         (registration.serves.ipv6 && used[static_cast<std::size_t>(Family::kIpv6)]);
        return any ? "" : "the service has no binding of its protocol and family that a client could match any more";
}

std::string_view Revocation::why_given_up(const std::string& service, const Registration& registration,
                                          std::int64_t now_usec) {
        const auto why_revoked = why(service, registration);
        return why_revoked.empty() && registration.held() ? end_of_hold(*found_, registration, now_usec) : why_revoked;
}

std::string rows_of_revoked(const Policy& policy, const Registry& registry, const Accounts& accounts,
                            RowOfRevoked* row) {
        std::string rows;
        Revocation revocation(policy, accounts);
        const auto now = steady_usec();
        for (const auto& service : registry.services()) {
                const auto registrations = registry.registrations(service);
                const Serving serving(registrations, registry.distribution(service));
                for (const auto& one : registrations) {
                        if (const auto why = revocation.why_given_up(service, one, now); !why.empty()) {
                                rows += row(service, one, serving.is_live(one), why);
                        }
                }
        }
        return rows;
}

}  // namespace sockbroker
