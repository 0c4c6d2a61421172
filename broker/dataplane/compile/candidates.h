// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Candidate lengths: which prefix lengths a lookup has to probe, by a hash of the first bits of the address
// (bpf/layout.h). How many bits, and whether at all, is chosen here from how the prefixes lie. Knows nothing of rules.
// As in a Bloom filter there are false positives, never false negatives.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "bpf/layout.h"
#include "broker/dataplane/compile/buckets.h"

namespace sockbroker {

using LengthCounts = std::array<std::uint32_t, SB_MAX_LENGTHS>;

// How the prefixes of a table lie.
struct PrefixCensus {
        LengthCounts of_length{};
        // [n]: pairs of neighbours, in the order of addresses, that have exactly their first n bits in common.
        LengthCounts parted_at{};
};

// The cost of choosing candidates by the first `bits` bits of an address.
struct CandidateCost {
        // Expected wasted probes per lookup: prefixes that share those bits, lengths that are always probed, and up to
        // one half for words that shorter prefixes fill.
        double cost = 0;
        std::size_t words = 0;  // that are not empty
        unsigned shortest = 0;  // prefixes that are shorter are among no candidates, but always probed
};
[[nodiscard]] CandidateCost candidate_cost(const PrefixCensus& census, unsigned bits);

struct CandidatePlan {
        unsigned bits = 0;  // 0: no candidates, all lengths are probed
        unsigned shortest = 0;
        std::uint32_t lines = 0;
};

// The least cost, in no more lines than these.
[[nodiscard]] CandidatePlan plan_candidates(const PrefixCensus& census, std::size_t max_lines);

// Sets all words to "none of the lengths".
void clear_candidates(std::span<sb_line> words);

// Adds the length, number `index` of its table, to the words of all its keys. Greater lengths come first.
void add_candidate(std::span<sb_line> words, const sb_length& filter, Family family, const CandidatePlan& plan,
                   unsigned length, std::uint32_t index, std::span<const BucketKey> keys);

}  // namespace sockbroker
