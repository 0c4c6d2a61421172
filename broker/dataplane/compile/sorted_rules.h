// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A rule as the compiler sorts and groups it: small and by value, since following a million pointers would miss the
// cache every time. Of precedence it knows only that a covering prefix comes before those that it covers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bpf/layout.h"
#include "broker/base/huge_pages.h"
#include "broker/dataplane/compile/buckets.h"
#include "broker/dataplane/rules.h"

namespace sockbroker {

struct SortedRule {
        std::uint64_t high = 0;  // of the address, as a number; IPv4 in the upper half
        std::uint64_t low = 0;
        std::uint32_t rule = 0;   // its number in the list
        std::uint32_t flags = 0;  // of sb_rule
        PortRange ports;
        std::uint8_t length = 0;

        [[nodiscard]] bool same_prefix(const SortedRule& other) const {
                return high == other.high && low == other.low && length == other.length;
        }
        [[nodiscard]] bool has_host_bits() const;
        [[nodiscard]] bool covers(const SortedRule& other) const;
        [[nodiscard]] unsigned shared_bits(const SortedRule& other) const;  // of the addresses, from the first
        [[nodiscard]] BucketKey key(Family family) const;
};

static_assert(sizeof(SortedRule) == 32);

[[nodiscard]] SortedRule sorted_rule_of(const Rule& rule, std::size_t number);

// By address, then by length: a covering prefix before those that it covers.
void sort_rules(Scratch<SortedRule>& rules);

}  // namespace sockbroker
