// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "broker/dataplane/buckets.h"
#include "broker/dataplane/chains.h"
#include "broker/dataplane/expand.h"
#include "broker/dataplane/filter.h"
#include "broker/dataplane/items.h"
#include "broker/dataplane/scratch.h"

namespace sockbroker {

namespace {

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr std::size_t kItemsAhead = 16;  // places that are hashed all over memory are fetched so long before their turn
constexpr std::size_t kFewEntries = 4096;  // so many are never too many
constexpr std::uint64_t kFilterSeed = 0x9e3779b97f4a7c15;

// All rules of one destination prefix.
struct Group {
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
        if (rule.service == 0 || rule.service > SB_META_SERVICE) {
                return fail(fmt::format("cannot compile {}: service id {} is not between 1 and {}", describe(rule),
                                        rule.service, int{SB_META_SERVICE}));
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
        TableCompiler(std::span<const Rule> list, RuleMemory& lines, Family family, bool expand)
                : list_(list), lines_(lines), family_(family), expand_(expand) {}

        // `items`: rules of one protocol and family in the order of sort_items().
        Result<void> compile(std::span<const Item> items, sb_table& table);

private:
        Result<void> group();
        [[nodiscard]] FilterPlan plan_filter_for(const StandingLengths& standing, sb_table& table);
        Result<void> place(sb_table& table);
        [[nodiscard]] std::span<sb_line> orders(const sb_table& table);
        void mark_present(sb_table& table) const;
        Result<void> write();
        void put(std::uint32_t reference, sb_rule rule);
        [[nodiscard]] std::size_t most_entries() const;
        [[nodiscard]] std::unexpected<Error> too_many() const;

        std::span<const Rule> list_;  // the items number these
        RuleMemory& lines_;
        Family family_;
        bool expand_;
        std::span<const Item> items_;
        std::vector<const Rule*> rules_;  // of the prefixes that have several
        Scratch<Group> groups_;
        LengthCounts counts_{};                                        // groups by length
        std::vector<std::pair<std::uint32_t, std::uint32_t>> copies_;  // group, further place
};

std::unexpected<Error> TableCompiler::too_many() const {
        return fail(ENOSPC, fmt::format("the rules need more than the {} lines of rule memory that there are for one "
                                        "generation; raise MaxBindings= in sockbrokerd.conf and restart sockbrokerd",
                                        lines_.room()));
}

// Covering prefixes come before those they cover, so a stack of the open ones gives each its next shorter.
Result<void> TableCompiler::group() {
        std::vector<std::uint32_t> open;
        groups_.reserve(items_.size());
        for (std::size_t i = 0; i < items_.size();) {
                const Item& item = items_[i];
                Group group{.item = static_cast<std::uint32_t>(i)};
                std::size_t end = i + 1;
                while (end < items_.size() && items_[end].same_prefix(item)) {
                        end++;
                }
                if (end - i > 1) {
                        group.begin = static_cast<std::uint32_t>(rules_.size());
                        for (std::size_t each = i; each < end; each++) {
                                rules_.push_back(&list_[items_[each].rule]);
                        }
                        std::sort(rules_.begin() + group.begin, rules_.end(),
                                  [](const Rule* a, const Rule* b) { return tried_before(*a, *b); });
                        if (auto settled = settle_ties(rules_, group.begin); !settled) {
                                return settled;
                        }
                        group.end = static_cast<std::uint32_t>(rules_.size());
                }
                while (!open.empty() && !items_[groups_[open.back()].item].covers(item)) {
                        open.pop_back();
                }
                group.covering = open.empty() ? kNone : open.back();
                open.push_back(static_cast<std::uint32_t>(groups_.size()));
                groups_.push_back(group);
                counts_[item.length]++;
                i = end;
        }
        return {};
}

// How many entries there may be, if lengths are to be brought together: a bounded part of the room, so that chains and
// the other tables find theirs.
std::size_t TableCompiler::most_entries() const {
        return std::min(std::max(groups_.size() * 5 / 2, kFewEntries), lines_.left() / 2);
}

// The filter's lines stand before the regions, so that each length is added to it while its keys are at hand.
FilterPlan TableCompiler::plan_filter_for(const StandingLengths& standing, sb_table& table) {
        if (!expand_) {
                return {};  // the room is short
        }
        LengthCounts entries{};
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                if (counts_[length] != 0) {
                        entries[standing[length]] += counts_[length] << (standing[length] - length);
                }
        }
        LengthCounts shared{};
        for (std::size_t i = 1; i < groups_.size(); i++) {
                shared[items_[groups_[i - 1].item].shared_bits(items_[groups_[i].item])]++;
        }
        const FilterPlan plan = plan_filter(entries, shared, lines_.left() / 4);
        if (plan.bits != 0) {
                const Key mask = mask_of(family_, plan.bits);
                table.filter = {.mask = {mask.high, mask.low},
                                .seed = kFilterSeed,
                                .first = static_cast<std::uint32_t>(lines_.size()),
                                .lines = plan.lines};
                lines_.resize(lines_.size() + plan.lines);
                clear_orders(orders(table));
        }
        return plan;
}

std::span<sb_line> TableCompiler::orders(const sb_table& table) {
        return lines_.lines(table.filter.first, table.filter.lines);
}

Result<void> TableCompiler::place(sb_table& table) {
        const StandingLengths standing = choose_lengths(counts_, expand_ ? most_entries() : 0);
        const FilterPlan filter = plan_filter_for(standing, table);
        std::array<Scratch<std::uint32_t>, SB_MAX_LENGTHS> by_length;
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                if (counts_[length] != 0 && standing[length] == length) {
                        by_length[length].reserve(counts_[length]);
                }
        }
        for (std::uint32_t i = 0; i < groups_.size(); i++) {
                by_length[standing[items_[groups_[i].item].length]].push_back(i);
        }
        Scratch<Key> keys;
        Scratch<std::uint32_t> owners;  // group of each key
        Scratch<std::uint32_t> references;
        std::vector<NumberedPrefix> prefixes;
        for (unsigned length = SB_MAX_LENGTHS; length-- > 0;) {
                const auto& members = by_length[length];
                if (members.empty()) {
                        continue;
                }
                keys.clear();
                keys.reserve(members.size());
                owners.clear();
                if (std::all_of(members.begin(), members.end(),
                                [&](std::uint32_t member) { return items_[groups_[member].item].length == length; })) {
                        owners = members;
                        for (const std::uint32_t member : members) {
                                keys.push_back(items_[groups_[member].item].key(family_));
                        }
                } else {
                        prefixes.clear();
                        for (const std::uint32_t member : members) {
                                const Item& item = items_[groups_[member].item];
                                prefixes.push_back({item.high, item.low, item.length});
                        }
                        expand_prefixes(prefixes, length,
                                        [&](std::size_t index, std::uint64_t high, std::uint64_t low) {
                                                keys.push_back(Item{.high = high, .low = low}.key(family_));
                                                owners.push_back(members[index]);
                                        });
                }
                references.resize(keys.size());
                if (!place_keys(lines_, family_, length, keys, table.lengths[table.count], references)) {
                        return too_many();
                }
                for (std::size_t i = 0; i < keys.size(); i++) {
                        Group& group = groups_[owners[i]];
                        if (group.reference == 0) {
                                group.reference = references[i];
                        } else {
                                copies_.emplace_back(owners[i], references[i]);
                        }
                }
                if (filter.bits != 0 && length >= filter.shortest) {
                        add_to_orders(orders(table), table.filter, family_, filter, length, table.count, keys);
                        table.always = table.count + 1;
                }
                table.count++;
                table.long_count += length > 64 ? 1 : 0;
        }
        return {};
}

// Which first 16 bits of an address need a look at all.
void TableCompiler::mark_present(sb_table& table) const {
        for (const Group& group : groups_) {
                const Item& item = items_[group.item];
                const auto first = static_cast<std::uint32_t>(item.high >> 48);
                const std::uint32_t count = item.length >= 16 ? 1 : 1U << (16 - item.length);
                for (std::uint32_t place = first; place < first + count; place++) {
                        table.present[place / 64] |= std::uint64_t{1} << place % 64;
                }
        }
}

// Into the place of a key. Keeps the mark of an overflowing line that place_keys() may have set there.
void TableCompiler::put(std::uint32_t reference, sb_rule rule) {
        std::uint32_t* words = lines_[reference / SB_LINE_WORDS].words + reference % SB_LINE_WORDS;
        rule.meta |= words[1] & SB_META_OVERFLOW;
        std::copy_n(reinterpret_cast<const char*>(&rule), sizeof rule, reinterpret_cast<char*>(words));
}

Result<void> TableCompiler::write() {
        ChainWriter writer(lines_);
        for (std::size_t i = 0; i < groups_.size(); i++) {
                if (i + kItemsAhead < groups_.size()) {
                        __builtin_prefetch(&lines_[groups_[i + kItemsAhead].reference / SB_LINE_WORDS], 1);
                }
                Group& group = groups_[i];
                const Item& item = items_[group.item];
                const Rule* const first = &list_[item.rule];
                const bool covered = group.covering != kNone;
                const std::uint32_t covering = covered ? groups_[group.covering].reference : 0;
                sb_rule rule{.first = item.ports.first, .last = item.ports.last, .meta = item.meta, .next = covering};
                if (group.end != group.begin || (item.meta & SB_META_CONDITION) != 0) {
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
                group.steps += covered ? groups_[group.covering].steps : 0;
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
                if (group.reference == 0) {
                        // Longer prefixes have taken all of its places; they still lead on to it.
                        group.reference = writer.append(rule);
                } else {
                        put(group.reference, rule);
                }
        }
        for (const auto& [owner, reference] : copies_) {
                const std::uint32_t* words = lines_[groups_[owner].reference / SB_LINE_WORDS].words +
                                             groups_[owner].reference % SB_LINE_WORDS;
                sb_rule rule{};
                std::copy_n(reinterpret_cast<const char*>(words), sizeof rule, reinterpret_cast<char*>(&rule));
                rule.meta &= ~static_cast<std::uint32_t>(SB_META_OVERFLOW);
                put(reference, rule);
        }
        return {};
}

Result<void> TableCompiler::compile(std::span<const Item> items, sb_table& table) {
        items_ = items;
        if (auto grouped = group(); !grouped) {
                return grouped;
        }
        mark_present(table);
        if (auto placed = place(table); !placed) {
                return placed;
        }
        return write();
}

// The parts by SB_WHICH(). `expand`: prefix lengths may be brought together and filtered, which takes room.
Result<std::size_t> compile_parts(std::span<const Rule> rules, const std::array<Scratch<Item>, 4>& parts,
                                  std::span<sb_line> room, std::span<sb_table, 4> tables, bool expand) {
        RuleMemory lines(room);
        lines.resize(1);
        for (unsigned which = 0; which < parts.size(); which++) {
                const Family family = which % 2 == 0 ? Family::kIpv4 : Family::kIpv6;
                tables[which] = {};
                auto compiled = TableCompiler(rules, lines, family, expand).compile(parts[which], tables[which]);
                if (!compiled) {
                        return std::unexpected(compiled.error());
                }
        }
        return lines.size();
}

}  // namespace

Result<std::size_t> compile_into(std::span<const Rule> rules, std::span<sb_line> room, std::span<sb_table, 4> tables) {
        std::array<Scratch<Item>, 4> parts;
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
                parts[which_of(rule)].push_back(item_of(rule, i));
        }
        for (auto& part : parts) {
                Scratch<Item> other(part.size());
                sort_items(part, other);
        }
        auto result = compile_parts(rules, parts, room, tables, true);
        if (!result && result.error().errnum == ENOSPC) {
                result = compile_parts(rules, parts, room, tables, false);
        }
        return result;
}

Result<CompiledRules> compile_rules(const std::vector<Rule>& rules, std::size_t max_lines) {
        const auto room = std::make_unique_for_overwrite<sb_line[]>(max_lines);
        CompiledRules result{};
        const auto size = compile_into(rules, {room.get(), max_lines}, result.tables);
        if (!size) {
                return std::unexpected(size.error());
        }
        result.lines.assign(room.get(), room.get() + *size);
        return result;
}

}  // namespace sockbroker
