// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/compile.h"

#include <array>
#include <vector>

#include <fmt/format.h>

#include "broker/base/huge_pages.h"
#include "broker/dataplane/compile/rule_memory.h"
#include "broker/dataplane/compile/sorted_rules.h"
#include "broker/dataplane/compile/table.h"

namespace sockbroker {

namespace {

Result<void> check(const Rule& rule, const SortedRule& sorted) {
        const Family family = rule.prefix.address.family;
        if (rule.service == 0 || rule.service > SB_RULE_SERVICE) {
                return fail(fmt::format("cannot compile {}: service id {} is not between 1 and {}", describe(rule),
                                        rule.service, int{SB_RULE_SERVICE}));
        }
        if (rule.ports.first == 0 || rule.ports.first > rule.ports.last) {
                return fail(fmt::format("cannot compile {}: not a range of ports from 1 to 65535", describe(rule)));
        }
        if (rule.prefix.length > address_bits(family) || sorted.has_host_bits()) {
                return fail(fmt::format("cannot compile {}: host bits are set", describe(rule)));
        }
        if (rule.source && (rule.source->length > address_bits(rule.source->address.family) ||
                            masked(rule.source->address, rule.source->length) != rule.source->address)) {
                return fail(fmt::format("cannot compile {}: host bits are set in source {}", describe(rule),
                                        rule.source->to_string()));
        }
        if (rule.ifindex >= 1U << 24) {
                return fail(fmt::format("cannot compile {}: interface index {} is beyond {}", describe(rule),
                                        rule.ifindex, (1U << 24) - 1));
        }
        return {};
}

unsigned which_of(const Rule& rule) {
        return SB_WHICH(static_cast<unsigned>(rule.protocol), static_cast<unsigned>(rule.prefix.address.family));
}

}  // namespace

Result<std::size_t> compile_into(std::span<const Rule> rules, std::span<sb_line> room, std::span<sb_table, 4> tables,
                                 std::size_t* blamed) {
        std::array<Scratch<SortedRule>, 4> parts;
        for (auto& part : parts) {
                part.reserve(rules.size());  // what is not written costs nothing
        }
        for (std::size_t i = 0; i < rules.size(); i++) {
                const Rule& rule = rules[i];
                const SortedRule sorted = sorted_rule_of(rule, i);
                if (auto checked = check(rule, sorted); !checked) {
                        if (blamed != nullptr) {
                                *blamed = i;
                        }
                        return std::unexpected(checked.error());
                }
                const Family family = rule.prefix.address.family;
                if (rule.source && rule.source->address.family != family) {
                        continue;
                }
                parts[which_of(rule)].push_back(sorted);
        }
        for (auto& part : parts) {
                sort_rules(part);
        }
        RuleMemory lines(room);
        lines.resize(1);
        std::vector<TableCompiler> compilers;
        for (unsigned which = 0; which < parts.size(); which++) {
                const Family family = which % 2 == 0 ? Family::kIpv4 : Family::kIpv6;
                tables[which] = {};
                compilers.emplace_back(rules, parts[which], lines, family, tables[which]);
                if (auto compiled = compilers.back().compile(); !compiled) {
                        if (blamed != nullptr) {
                                *blamed = compilers.back().blamed();
                        }
                        return std::unexpected(compiled.error());
                }
        }
        for (TableCompiler& compiler : compilers) {
                compiler.add_candidates();
        }
        return lines.size();
}

}  // namespace sockbroker
