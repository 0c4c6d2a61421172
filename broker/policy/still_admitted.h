// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether those whom a service admitted before are still admitted: by what admits today, and by the name that did then,
// for as long as the policy has it, since the account of a DynamicUser= service goes with it. A name without an answer
// takes nothing away. Asked for each socket by each reload, so what does not depend on the socket is looked up once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "broker/peer/peer.h"
#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"

namespace sockbroker {

class StillAdmitted {
public:
        // The service must outlive this, the accounts need not.
        StillAdmitted(const Service& service, const Accounts& accounts);

        [[nodiscard]] bool admits(const Peer& registrant);

private:
        struct Accepted {  // by User= or by Group=; the vectors are sorted
                bool all = false;
                std::vector<std::uint32_t> ids;
                std::vector<AccountHash> names;

                [[nodiscard]] bool has(std::uint32_t id, AccountHash admitted_by) const;
        };
        template <class Lookup>
        [[nodiscard]] static Accepted accepted(const std::vector<Matcher>& matchers, const Lookup& lookup);
        [[nodiscard]] bool admits_unit(const std::string& unit);

        const Service& service_;
        Accepted users_;
        Accepted groups_;
        std::map<std::string, bool> units_;  // the verdicts so far
};

}  // namespace sockbroker
