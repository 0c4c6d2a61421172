// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/compile.h"

#include <algorithm>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "broker/dataplane/compile/buckets.h"
#include "broker/dataplane/compile/candidates.h"
#include "broker/dataplane/compile/chains.h"
#include "broker/dataplane/compile/scratch.h"
#include "broker/dataplane/compile/sorted_rules.h"

namespace sockbroker {

namespace {

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr std::size_t kItemsAhead = 16;  // places that are hashed all over memory are fetched so long before their turn
constexpr std::uint64_t kFilterSeed = 0x9e3779b97f4a7c15;

// All rules of one destination prefix.
struct PrefixRules {
        std::uint32_t item = 0;   // the first
        std::uint32_t begin = 0;  // where the prefix has several: all of them, in the order in which they are tried
        std::uint32_t end = 0;
        std::uint32_t covering = kNone;  // index of the group of the next shorter prefix that has rules
        std::uint32_t reference = 0;
        std::uint32_t steps = 0;  // to the end of the walk
};

std::string describe(const Rule& rule) {
        return fmt::format("{} {} ports {}", to_string(rule.protocol), rule.prefix.to_string(), rule.ports.to_string());
}

Result<void> check(const Rule& rule) {
        const Family family = rule.prefix.address.family;
        if (rule.service == 0 || rule.service > SB_RULE_SERVICE) {
                return fail(fmt::format("cannot compile {}: service id {} is not between 1 and {}", describe(rule),
                                        rule.service, int{SB_RULE_SERVICE}));
        }
        if (rule.ports.first == 0 || rule.ports.first > rule.ports.last) {
                return fail(fmt::format("cannot compile {}: not a range of ports from 1 to 65535", describe(rule)));
        }
        if (rule.prefix.length > address_bits(family) ||
            masked(rule.prefix.address, rule.prefix.length) != rule.prefix.address) {
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

// A source that covers everybody is the same as none.
Prefix source_of(const Rule& rule) {
        return rule.source && rule.source->length != 0 ? *rule.source : Prefix{};
}

// Drops what is written twice, refuses what contradicts itself. `rules` are of one prefix, in order; rules that could
// tie stand next to each other.
Result<void> settle_ties(std::vector<const Rule*>& rules, std::size_t begin) {
        std::size_t kept = begin;
        for (std::size_t i = begin; i < rules.size(); i++) {
                const Rule& rule = *rules[i];
                if (kept > begin) {
                        const Rule& before = *rules[kept - 1];
                        const bool ties = before.ports.width() == rule.ports.width() &&
                                          before.ifindex == rule.ifindex && source_of(before) == source_of(rule);
                        if (ties && before.ports == rule.ports && before.service == rule.service &&
                            before.absent == rule.absent) {
                                continue;
                        }
                        if (ties && before.ports.last >= rule.ports.first) {
                                return fail(fmt::format(
                                        "cannot compile {} of service {}: service {} has ports {}, and "
                                        "neither goes before the other",
                                        describe(rule), rule.service, before.service, before.ports.to_string()));
                        }
                }
                rules[kept++] = rules[i];
        }
        rules.resize(kept);
        return {};
}

class TableCompiler {
public:
        // `items`: rules of one protocol and family in the order of sort_rules().
        TableCompiler(std::span<const Rule> list, std::span<const SortedRule> items, RuleMemory& lines, Family family,
                      sb_table& table)
                : list_(list), sorted_(items), lines_(lines), family_(family), table_(table) {}

        Result<void> compile();
        // Takes no more than the lines that are left, so it comes after the rules of all tables.
        void add_candidates();

private:
        Result<void> group_by_prefix();
        Result<void> place();
        void mark_present();
        Result<void> write();
        void put(std::uint32_t reference, sb_rule rule);
        [[nodiscard]] Scratch<Key> keys_of(unsigned length) const;
        [[nodiscard]] std::unexpected<Error> too_many() const;

        std::span<const Rule> list_;  // the items number these
        std::span<const SortedRule> sorted_;
        RuleMemory& lines_;
        Family family_;
        sb_table& table_;
        std::vector<const Rule*> rules_;  // of the prefixes that have several
        Scratch<PrefixRules> prefixes_;
        std::array<Scratch<std::uint32_t>, SB_MAX_LENGTHS> by_length_;  // groups
};

std::unexpected<Error> TableCompiler::too_many() const {
        return fail(ENOSPC, fmt::format("the rules need more than the {} lines of rule memory that there are for one "
                                        "generation; raise MaxBindings= in sockbrokerd.conf and restart sockbrokerd",
                                        lines_.room()));
}

// Covering prefixes come before those they cover, so a stack of the open ones gives each its next shorter.
Result<void> TableCompiler::group_by_prefix() {
        std::vector<std::uint32_t> open;
        std::array<std::uint32_t, SB_MAX_LENGTHS> counts{};
        prefixes_.reserve(sorted_.size());
        for (std::size_t i = 0; i < sorted_.size();) {
                const SortedRule& item = sorted_[i];
                PrefixRules group{.item = static_cast<std::uint32_t>(i)};
                std::size_t end = i + 1;
                while (end < sorted_.size() && sorted_[end].same_prefix(item)) {
                        end++;
                }
                if (end - i > 1) {
                        group.begin = static_cast<std::uint32_t>(rules_.size());
                        for (std::size_t each = i; each < end; each++) {
                                rules_.push_back(&list_[sorted_[each].rule]);
                        }
                        std::sort(rules_.begin() + group.begin, rules_.end(),
                                  [](const Rule* a, const Rule* b) { return tried_before(*a, *b); });
                        if (auto settled = settle_ties(rules_, group.begin); !settled) {
                                return settled;
                        }
                        group.end = static_cast<std::uint32_t>(rules_.size());
                }
                while (!open.empty() && !sorted_[prefixes_[open.back()].item].covers(item)) {
                        open.pop_back();
                }
                group.covering = open.empty() ? kNone : open.back();
                open.push_back(static_cast<std::uint32_t>(prefixes_.size()));
                prefixes_.push_back(group);
                counts[item.length]++;
                i = end;
        }
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                by_length_[length].reserve(counts[length]);
        }
        for (std::uint32_t i = 0; i < prefixes_.size(); i++) {
                by_length_[sorted_[prefixes_[i].item].length].push_back(i);
        }
        return {};
}

Scratch<Key> TableCompiler::keys_of(unsigned length) const {
        Scratch<Key> keys;
        keys.reserve(by_length_[length].size());
        for (const std::uint32_t group : by_length_[length]) {
                keys.push_back(sorted_[prefixes_[group].item].key(family_));
        }
        return keys;
}

Result<void> TableCompiler::place() {
        Scratch<std::uint32_t> references;
        for (unsigned length = SB_MAX_LENGTHS; length-- > 0;) {
                if (by_length_[length].empty()) {
                        continue;
                }
                const auto keys = keys_of(length);
                references.resize(keys.size());
                if (!place_keys(lines_, family_, length, keys, table_.lengths[table_.count], references)) {
                        return too_many();
                }
                for (std::size_t i = 0; i < keys.size(); i++) {
                        prefixes_[by_length_[length][i]].reference = references[i];
                }
                table_.count++;
                table_.long_count += length > 64 ? 1 : 0;
        }
        return {};
}

void TableCompiler::add_candidates() {
        LengthCounts entries{};
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                entries[length] = static_cast<std::uint32_t>(by_length_[length].size());
        }
        LengthCounts shared{};
        for (std::size_t i = 1; i < prefixes_.size(); i++) {
                shared[sorted_[prefixes_[i - 1].item].shared_bits(sorted_[prefixes_[i].item])]++;
        }
        const CandidatePlan plan = plan_candidates(entries, shared, lines_.left());
        if (plan.bits == 0) {
                return;
        }
        const Key mask = mask_of(family_, plan.bits);
        table_.filter_long = plan.bits > 64 ? 1 : 0;
        table_.filter = {.mask = plan.bits > 64 ? mask.low : mask.high,
                         .seed = kFilterSeed,
                         .first = static_cast<std::uint32_t>(lines_.size()),
                         .lines = plan.lines};
        lines_.resize(lines_.size() + plan.lines);
        const auto words = lines_.lines(table_.filter.first, plan.lines);
        clear_candidates(words);
        std::uint32_t number = 0;
        for (unsigned length = SB_MAX_LENGTHS; length-- > plan.shortest;) {
                if (!by_length_[length].empty()) {
                        add_candidate(words, table_.filter, family_, plan, length, number++, keys_of(length));
                }
        }
        table_.always = number;
}

// Which first 16 bits of an address need a look at all.
void TableCompiler::mark_present() {
        for (const PrefixRules& group : prefixes_) {
                const SortedRule& item = sorted_[group.item];
                const auto first = static_cast<std::uint32_t>(item.high >> 48);
                const std::uint32_t count = item.length >= 16 ? 1 : 1U << (16 - item.length);
                for (std::uint32_t place = first; place < first + count; place++) {
                        table_.present[place / 64] |= std::uint64_t{1} << place % 64;
                }
        }
}

// Into the place of a key. Keeps the mark of an overflowing line that place_keys() may have set there.
void TableCompiler::put(std::uint32_t reference, sb_rule rule) {
        std::uint32_t* words = lines_[reference / SB_LINE_WORDS].words + reference % SB_LINE_WORDS;
        rule.flags |= words[1] & SB_RULE_OVERFLOW;
        std::copy_n(reinterpret_cast<const char*>(&rule), sizeof rule, reinterpret_cast<char*>(words));
}

Result<void> TableCompiler::write() {
        ChainWriter writer(lines_);
        for (std::size_t i = 0; i < prefixes_.size(); i++) {
                if (i + kItemsAhead < prefixes_.size()) {
                        __builtin_prefetch(&lines_[prefixes_[i + kItemsAhead].reference / SB_LINE_WORDS], 1);
                }
                PrefixRules& group = prefixes_[i];
                const SortedRule& item = sorted_[group.item];
                const Rule* const first = &list_[item.rule];
                const bool covered = group.covering != kNone;
                const std::uint32_t covering = covered ? prefixes_[group.covering].reference : 0;
                sb_rule rule{.first = item.ports.first, .last = item.ports.last, .flags = item.flags, .next = covering};
                if (group.end != group.begin || (item.flags & SB_RULE_CONDITION) != 0) {
                        const auto rules = group.end != group.begin
                                                   ? std::span(rules_).subspan(group.begin, group.end - group.begin)
                                                   : std::span<const Rule* const>(&first, 1);
                        auto chain = writer.write(rules, covering, group.steps);
                        if (!chain) {
                                return std::unexpected(chain.error());
                        }
                        rule = *chain;
                } else {
                        group.steps = 1;
                }
                group.steps += covered ? prefixes_[group.covering].steps : 0;
                if (group.steps > SB_MAX_STEPS) {
                        return fail(
                                fmt::format("cannot compile the rules of {} and the prefixes that cover it: {} would "
                                            "have to be tried "
                                            "for one packet, {} can; merge source prefixes or interfaces",
                                            first->prefix.to_string(), group.steps, int{SB_MAX_STEPS}));
                }
                if (lines_.overflowed()) {
                        return too_many();
                }
                put(group.reference, rule);
        }
        return {};
}

Result<void> TableCompiler::compile() {
        if (auto grouped = group_by_prefix(); !grouped) {
                return grouped;
        }
        mark_present();
        if (auto placed = place(); !placed) {
                return placed;
        }
        return write();
}

}  // namespace

Result<std::size_t> compile_into(std::span<const Rule> rules, std::span<sb_line> room, std::span<sb_table, 4> tables) {
        std::array<Scratch<SortedRule>, 4> parts;
        std::array<std::size_t, 4> sizes{};
        for (const Rule& rule : rules) {
                sizes[which_of(rule)]++;
        }
        for (std::size_t which = 0; which < parts.size(); which++) {
                parts[which].reserve(sizes[which]);
        }
        for (std::size_t i = 0; i < rules.size(); i++) {
                const Rule& rule = rules[i];
                if (auto checked = check(rule); !checked) {
                        return std::unexpected(checked.error());
                }
                const Family family = rule.prefix.address.family;
                if (rule.source && rule.source->address.family != family) {
                        continue;
                }
                parts[which_of(rule)].push_back(sorted_rule_of(rule, i));
        }
        for (auto& part : parts) {
                Scratch<SortedRule> other(part.size());
                sort_rules(part, other);
        }
        RuleMemory lines(room);
        lines.resize(1);
        std::vector<TableCompiler> compilers;
        for (unsigned which = 0; which < parts.size(); which++) {
                const Family family = which % 2 == 0 ? Family::kIpv4 : Family::kIpv6;
                tables[which] = {};
                compilers.emplace_back(rules, parts[which], lines, family, tables[which]);
                if (auto compiled = compilers.back().compile(); !compiled) {
                        return std::unexpected(compiled.error());
                }
        }
        for (TableCompiler& compiler : compilers) {
                compiler.add_candidates();
        }
        return lines.size();
}

}  // namespace sockbroker
