// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/table.h"

#include <algorithm>

#include <fmt/format.h>

#include "broker/dataplane/compile/candidates.h"
#include "broker/dataplane/compile/chains.h"

namespace sockbroker {

namespace {

constexpr std::size_t kPrefixesAhead =
        32;  // lines that are hashed all over memory are fetched so long before their turn
constexpr std::uint64_t kFilterSeed = 0x9e3779b97f4a7c15;

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

}  // namespace

std::string describe(const Rule& rule) {
        return fmt::format("{} {} ports {}", to_string(rule.protocol), rule.prefix.to_string(), rule.ports.to_string());
}

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
                const SortedRule& rule = sorted_[i];
                PrefixRules prefix{.first = static_cast<std::uint32_t>(i)};
                std::size_t end = i + 1;
                while (end < sorted_.size() && sorted_[end].same_prefix(rule)) {
                        end++;
                }
                if (end - i > 1) {
                        prefix.begin = static_cast<std::uint32_t>(rules_.size());
                        for (std::size_t each = i; each < end; each++) {
                                rules_.push_back(&list_[sorted_[each].rule]);
                        }
                        std::sort(rules_.begin() + prefix.begin, rules_.end(),
                                  [](const Rule* a, const Rule* b) { return tried_before(*a, *b); });
                        if (auto settled = settle_ties(rules_, prefix.begin); !settled) {
                                return settled;
                        }
                        prefix.end = static_cast<std::uint32_t>(rules_.size());
                }
                while (!open.empty() && !sorted_[prefixes_[open.back()].first].covers(rule)) {
                        open.pop_back();
                }
                prefix.covering = open.empty() ? kNoPrefix : open.back();
                open.push_back(static_cast<std::uint32_t>(prefixes_.size()));
                prefixes_.push_back(prefix);
                counts[rule.length]++;
                i = end;
        }
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                by_length_[length].reserve(counts[length]);
        }
        for (std::uint32_t i = 0; i < prefixes_.size(); i++) {
                by_length_[sorted_[prefixes_[i].first].length].push_back(i);
        }
        return {};
}

Scratch<BucketKey> TableCompiler::keys_of(unsigned length) const {
        Scratch<BucketKey> keys;
        keys.reserve(by_length_[length].size());
        for (const std::uint32_t prefix : by_length_[length]) {
                keys.push_back(sorted_[prefixes_[prefix].first].key(family_));
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
        PrefixCensus census;
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                census.of_length[length] = static_cast<std::uint32_t>(by_length_[length].size());
        }
        for (std::size_t i = 1; i < prefixes_.size(); i++) {
                census.parted_at[sorted_[prefixes_[i - 1].first].shared_bits(sorted_[prefixes_[i].first])]++;
        }
        const CandidatePlan plan = plan_candidates(census, lines_.left());
        if (plan.bits == 0) {
                return;
        }
        const BucketKey mask = mask_of(family_, plan.bits);
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
        for (const PrefixRules& prefix : prefixes_) {
                const SortedRule& rule = sorted_[prefix.first];
                const auto first = static_cast<std::uint32_t>(rule.high >> 48);
                const std::uint32_t count = rule.length >= 16 ? 1 : 1U << (16 - rule.length);
                for (std::uint32_t place = first; place < first + count; place++) {
                        table_.present[place / 64] |= std::uint64_t{1} << place % 64;
                }
        }
}

Result<void> TableCompiler::write() {
        ChainWriter writer(lines_);
        for (std::size_t i = 0; i < prefixes_.size(); i++) {
                if (i + kPrefixesAhead < prefixes_.size()) {
                        __builtin_prefetch(&lines_[prefixes_[i + kPrefixesAhead].reference / SB_LINE_WORDS], 1);
                }
                PrefixRules& prefix = prefixes_[i];
                const SortedRule& rule = sorted_[prefix.first];
                blamed_ = rule.rule;
                const Rule* const first = &list_[rule.rule];
                const bool covered = prefix.covering != kNoPrefix;
                const std::uint32_t covering = covered ? prefixes_[prefix.covering].reference : 0;
                sb_rule own{.first = rule.ports.first, .last = rule.ports.last, .flags = rule.flags, .next = covering};
                if (prefix.end != prefix.begin || (rule.flags & SB_RULE_CONDITION) != 0) {
                        const auto rules = prefix.end != prefix.begin
                                                   ? std::span(rules_).subspan(prefix.begin, prefix.end - prefix.begin)
                                                   : std::span<const Rule* const>(&first, 1);
                        auto chain = writer.write(rules, covering, prefix.steps);
                        if (!chain) {
                                return std::unexpected(chain.error());
                        }
                        own = *chain;
                } else {
                        prefix.steps = 1;
                }
                prefix.steps += covered ? prefixes_[prefix.covering].steps : 0;
                if (prefix.steps > SB_MAX_STEPS) {
                        return fail(
                                fmt::format("cannot compile the rules of {} and the prefixes that cover it: {} would "
                                            "have to be tried for one packet, {} can; merge source prefixes or "
                                            "interfaces",
                                            first->prefix.to_string(), prefix.steps, int{SB_MAX_STEPS}));
                }
                if (lines_.overflowed()) {
                        return too_many();
                }
                write_bucket(lines_, family_, rule.length, prefix.reference, rule.key(family_), own);
        }
        return {};
}

Result<void> TableCompiler::compile() {
        blamed_ = sorted_.empty() ? 0 : sorted_.back().rule;
        if (auto grouped = group_by_prefix(); !grouped) {
                return grouped;
        }
        mark_present();
        if (auto placed = place(); !placed) {
                return placed;
        }
        return write();
}

}  // namespace sockbroker
