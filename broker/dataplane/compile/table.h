// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The rules of one protocol and family to one table: prefixes, their regions, their chains, the candidates. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bpf/layout.h"
#include "broker/base/huge_pages.h"
#include "broker/base/result.h"
#include "broker/dataplane/compile/buckets.h"
#include "broker/dataplane/compile/rule_memory.h"
#include "broker/dataplane/compile/sorted_rules.h"
#include "broker/dataplane/rules.h"

namespace sockbroker {

inline constexpr std::uint32_t kNoPrefix = UINT32_MAX;

// All rules of one destination prefix.
struct PrefixRules {
        std::uint32_t first = 0;  // of the sorted rules
        std::uint32_t begin = 0;  // where the prefix has several: all of them, in the order in which they are tried
        std::uint32_t end = 0;
        std::uint32_t covering = kNoPrefix;  // index of the next shorter prefix that has rules
        std::uint32_t reference = 0;
        std::uint32_t steps = 0;  // to the end of the walk
};

class TableCompiler {
public:
        // `sorted`: rules of one protocol and family in the order of sort_rules(), by their numbers in `list`.
        TableCompiler(std::span<const Rule> list, std::span<const SortedRule> sorted, RuleMemory& lines, Family family,
                      sb_table& table)
                : list_(list), sorted_(sorted), lines_(lines), family_(family), table_(table) {}

        Result<void> compile();
        // Of its failure: the number of the rule that it is about.
        [[nodiscard]] std::size_t blamed() const { return blamed_; }
        // Takes no more than the lines that are left, so it comes after the rules of all tables.
        void add_candidates();

private:
        Result<void> group_by_prefix();
        Result<void> place();
        void mark_present();
        Result<void> write();
        [[nodiscard]] Scratch<BucketKey> keys_of(unsigned length) const;
        [[nodiscard]] std::unexpected<Error> too_many() const;

        std::span<const Rule> list_;
        std::span<const SortedRule> sorted_;
        RuleMemory& lines_;
        Family family_;
        sb_table& table_;
        std::size_t blamed_ = 0;
        std::vector<const Rule*> rules_;  // of the prefixes that have several
        Scratch<PrefixRules> prefixes_;
        std::array<Scratch<std::uint32_t>, SB_MAX_LENGTHS> by_length_;  // indices of prefixes_
};

// For error messages.
[[nodiscard]] std::string describe(const Rule& rule);

}  // namespace sockbroker
