// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fewer prefix lengths for the program to probe: a prefix may stand as all of its continuations of a greater length,
// but for those that have a longer prefix of their own (controlled prefix expansion). Which lengths stay is chosen
// here, for the fewest entries. Knows nothing of rules: that a covering prefix has its answer too is the business of
// the compiler.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bpf/layout.h"

namespace sockbroker {

// More than these are brought down to as few as the room allows, never below.
inline constexpr unsigned kProbedLengths = 5;

using LengthCounts = std::array<std::uint32_t, SB_MAX_LENGTHS>;
using StandingLengths = std::array<std::uint8_t, SB_MAX_LENGTHS>;

// For each length in use the one at which its prefixes are to stand, which is the same or greater; not more than
// `max_entries` come of it, if more than the prefixes are needed at all.
[[nodiscard]] StandingLengths choose_lengths(const LengthCounts& counts, std::size_t max_entries);

struct NumberedPrefix {
        std::uint64_t high = 0;  // an IPv4 address is in the upper half
        std::uint64_t low = 0;
        std::uint8_t length = 0;
};

// Calls `stand(index, high, low)` for every continuation to `length` bits, with the index of the longest of `prefixes`
// that covers it. They are in order, a covering prefix before those that it covers, none longer than `length`.
void expand_prefixes(std::span<const NumberedPrefix> prefixes, unsigned length,
                     const std::function<void(std::size_t, std::uint64_t, std::uint64_t)>& stand);

}  // namespace sockbroker
