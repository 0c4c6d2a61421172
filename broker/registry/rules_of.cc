// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The two pure translations between what the broker keeps and what the kernel is told: a policy to rules, the
// registrations of a service to its targets.
#include "broker/registry/registry.h"

#include <algorithm>

namespace sockbroker {

std::vector<Rule> rules_of(const Policy& policy, const std::function<ServiceId(const std::string&)>& id_of) {
        std::size_t bindings = 0;
        for (const auto& service : policy.services) {
                bindings += service.bindings.size();
        }
        std::vector<Rule> rules;
        rules.reserve(bindings);
        for (const auto& service : policy.services) {
                const Rule common{.service = id_of(service.name),
                                  .absent = service.when_absent == WhenAbsent::kPass ? Absent::kPass : Absent::kRefuse};
                for (const auto& binding : service.bindings) {
                        Rule& rule = rules.emplace_back(common);
                        rule.protocol = binding.protocol;
                        rule.prefix = binding.prefix;
                        rule.ports = binding.ports;
                }
        }
        return rules;
}

Targets targets_of(std::span<const Registration> newest_first, Spread spread) {
        Targets targets;
        targets.share = spread.share;
        targets.reuse_port = spread.reuse_port;
        const std::size_t most = spread.share ? kMaxShared : kReserveDepth;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        auto& slots =
                                targets.slots[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)];
                        for (const auto& registration : newest_first) {
                                if (slots.size() < most && registration.serves_in(protocol, family)) {
                                        slots.push_back(registration.slot);
                                }
                        }
                }
        }
        return targets;
}

const Registration* first_choice(std::span<const Registration> newest_first, Protocol protocol, Family family) {
        const auto found = std::ranges::find_if(
                newest_first, [&](const Registration& one) { return one.serves_in(protocol, family); });
        return found == newest_first.end() ? nullptr : &*found;
}

bool is_live(std::span<const Registration> newest_first, Spread spread, const Registration& one) {
        return std::ranges::any_of(std::array{Family::kIpv4, Family::kIpv6}, [&](Family family) {
                const auto* first = first_choice(newest_first, one.protocol, family);
                return one.serves_in(one.protocol, family) && (spread.share || first->slot == one.slot);
        });
}

}  // namespace sockbroker
