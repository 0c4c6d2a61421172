// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/still_admitted.h"

#include <algorithm>

#include "broker/policy/values.h"

namespace sockbroker {

bool StillAdmitted::Accepted::has(std::uint32_t id, AccountHash admitted_by) const {
        return all || std::ranges::binary_search(names, admitted_by) ||
               (!is_overflow_id(id) && std::ranges::binary_search(ids, id));
}

template <class Lookup>
StillAdmitted::Accepted StillAdmitted::accepted(const std::vector<Matcher>& matchers, const Lookup& lookup) {
        Accepted accepted{.all = matchers.empty(), .ids = {}, .names = {}};
        for (const auto& matcher : matchers) {
                if (const auto number = account_number(matcher.value)) {
                        accepted.ids.push_back(*number);
                        continue;
                }
                accepted.names.push_back(account_hash(matcher.value));
                const auto answer = lookup(matcher.value);
                if (const auto id = answer.id()) {
                        accepted.ids.push_back(*id);
                } else if (!answer.answered()) {
                        accepted.all = true;
                }
        }
        std::ranges::sort(accepted.ids);
        std::ranges::sort(accepted.names);
        return accepted;
}

StillAdmitted::StillAdmitted(const Service& service, const Accounts& accounts)
        : service_(service),
          users_(accepted(service.users, accounts.user)),
          groups_(accepted(service.groups, accounts.group)) {}

bool StillAdmitted::admits_unit(const std::string& unit) {
        const auto [known, is_new] = units_.try_emplace(unit, false);
        if (is_new) {
                known->second = service_.units.empty() || std::ranges::any_of(service_.units, [&](const auto& matcher) {
                                        return unit_matches(matcher.value, unit);
                                });
        }
        return known->second;
}

bool StillAdmitted::admits(const Peer& registrant) {
        const bool any = !service_.units.empty() || !service_.users.empty() || !service_.groups.empty();
        return any && users_.has(registrant.uid, registrant.user_name) &&
               groups_.has(registrant.gid, registrant.group_name) && admits_unit(registrant.unit);
}

}  // namespace sockbroker
