// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/registry/check_rules.h"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>

#include "broker/dataplane/compile/compile.h"
#include "broker/registry/registry.h"

namespace sockbroker {

namespace {

// Of the n-th rule that rules_of() makes where no interface is missing.
Where place_of_rule(const Policy& policy, std::size_t n) {
        for (const auto& service : policy.services) {
                for (const auto& binding : service.bindings) {
                        const auto matches = count_client_filters(service, binding.prefix.address.family);
                        if (n < matches) {
                                return binding.where;
                        }
                        n -= matches;
                }
        }
        return {};
}

}  // namespace

std::vector<Diagnostic> check_rules(const Policy& policy, std::uint32_t max_bindings) {
        Interfaces interfaces;
        std::uint32_t index = 0;
        for (const auto& service : policy.services) {
                for (const auto& interface : service.interfaces) {
                        interfaces.try_emplace(interface.value, ++index);
                }
        }
        ServiceId id = 0;  // rules_of() asks once for each service
        std::vector<std::uint32_t> counters(counted_bindings(policy).size());
        std::iota(counters.begin(), counters.end(), 1U);
        const auto rules = rules_of(
                policy, [&](const std::string&) { return ++id; }, interfaces, counters);

        const std::size_t lines = lines_for(max_bindings);
        const auto room = std::make_unique_for_overwrite<sb_line[]>(lines);
        const auto tables = std::make_unique<std::array<sb_table, 4>>();
        std::size_t blamed = 0;
        const auto compiled = compile_into(rules, {room.get(), lines}, *tables, &blamed);
        if (compiled) {
                return {};
        }
        const auto where = place_of_rule(policy, blamed);
        return {{policy.files.at(where.file), where.line, Severity::kError, compiled.error().text()}};
}

bool has_all_interfaces(const Policy& policy, const Interfaces& interfaces) {
        return std::ranges::all_of(policy.services, [&](const Service& service) {
                return std::ranges::all_of(service.interfaces, [&](const Matcher& interface) {
                        const auto found = interfaces.find(interface.value);
                        return found != interfaces.end() && found->second != 0;
                });
        });
}

}  // namespace sockbroker
