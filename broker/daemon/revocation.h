// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which registrations a policy takes away: those that it would not admit. Pure, but for the clock of those that are
// held.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"
#include "broker/policy/still_admitted.h"
#include "broker/registry/registry.h"

namespace sockbroker {

// Asks of one service after the other: what is looked up for a service is kept until another is asked about.
class Revocation {
public:
        // The policy must outlive this.
        Revocation(const Policy& policy, Accounts accounts) : policy_(policy), accounts_(std::move(accounts)) {}

        // Empty: it stays.
        [[nodiscard]] std::string_view why(const std::string& service, const Registration& registration);
        // The same, and of one that is held whether it would wait for the next instance no longer.
        [[nodiscard]] std::string_view why_given_up(const std::string& service, const Registration& registration,
                                                    std::int64_t now_usec);

private:
        void look_up(const std::string& service);

        const Policy& policy_;
        Accounts accounts_;
        std::string service_;
        const Service* found_ = nullptr;
        std::optional<StillAdmitted> admitted_;  // none: there is no such service
};

// Rows of all that go, held ones too that are given up, of which `row` makes one.
using RowOfRevoked = std::string(const std::string& service, const Registration& registration, bool live,
                                 std::string_view why);
[[nodiscard]] std::string rows_of_revoked(const Policy& policy, const Registry& registry, const Accounts& accounts,
                                          RowOfRevoked* row);

}  // namespace sockbroker
