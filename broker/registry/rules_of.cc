// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The two pure translations between what the broker keeps and what the kernel is told: a policy to rules, the
// registrations of a service to its targets.
#include "broker/registry/registry.h"

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

Targets targets_of(std::span<const Registration> newest_first) {
        Targets targets{};
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        auto& slots = targets[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)];
                        std::size_t used = 0;
                        for (const auto& registration : newest_first) {
                                if (used < slots.size() && registration.serves_in(protocol, family)) {
                                        slots[used++] = registration.slot;
                                }
                        }
                }
        }
        return targets;
}

}  // namespace sockbroker
