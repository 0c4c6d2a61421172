// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which prefix lengths a look-up has to probe, by a hash of the first bits of the address (struct sb_table: words).
// How many bits, and whether at all, is chosen here from how the prefixes lie. Knows nothing of rules. An order may
// name a length too many, where two beginnings share a place, and never one too few.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "bpf/layout.h"
#include "broker/dataplane/compile/buckets.h"

namespace sockbroker {

// So few lengths are probed at once where the words of many entries would not lie in a near cache: the probes do not
// wait for each other, while they would wait for an order.
inline constexpr unsigned kUnfilteredLengths = 4;
inline constexpr std::size_t kFewOrdered = 1 << 17;

using LengthCounts = std::array<std::uint32_t, SB_MAX_LENGTHS>;

struct CandidatePlan {
        unsigned bits = 0;      // of the address; 0: no filter
        unsigned shortest = 0;  // prefixes that are shorter stand in no order
        std::uint32_t lines = 0;
};

// `entries`: how many stand at each length; `shared[n]`: of how many neighbours, in the order of addresses, the first n
// bits are the same and the next is not.
[[nodiscard]] CandidatePlan plan_candidates(const LengthCounts& entries, const LengthCounts& shared,
                                            std::size_t max_lines);

// Sets all words to "none".
void clear_candidates(std::span<sb_line> words);

// Adds the length, number `index` of its table, to the words of all its keys. Greater lengths come first.
void add_candidate(std::span<sb_line> words, const sb_length& filter, Family family, const CandidatePlan& plan,
                   unsigned length, std::uint32_t index, std::span<const Key> keys);

}  // namespace sockbroker
