// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/candidates.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "broker/dataplane/compile/sorted_rules.h"

namespace sockbroker {

namespace {

constexpr unsigned kMostNumbers = SB_CANDIDATE_END - 1;  // lengths that a code can name
constexpr unsigned kMostExtended = 20;   // bits by which a prefix is extended to all that it covers of `bits` bits
constexpr std::size_t kFewWords = 4096;  // so many are never too many
constexpr std::size_t kAhead = 16;       // words are fetched so long before their turn
constexpr std::uint32_t kCode = (1U << SB_CANDIDATE_BITS) - 1;

// So few lengths are all probed where the words of many prefixes would not lie in a near cache: the probes do not wait
// for each other, while they would wait for the candidates.
constexpr unsigned kUnfilteredLengths = 4;
constexpr std::size_t kNearPrefixes = 1 << 17;

// Appends a length where the candidates end. A full word leads on to all that follow anyway.
std::uint32_t with_length(std::uint32_t candidates, std::uint32_t index) {
        std::uint32_t before = 0;
        for (unsigned shift = 0; shift < SB_CANDIDATE_BITS * SB_CANDIDATES; shift += SB_CANDIDATE_BITS) {
                const std::uint32_t code = candidates >> shift & kCode;
                if (code == SB_CANDIDATE_END) {
                        if (before == index + 1) {
                                return candidates;
                        }
                        candidates &= ~(kCode << shift);
                        candidates |= (index + 1) << shift;
                        if (shift + SB_CANDIDATE_BITS < SB_CANDIDATE_BITS * SB_CANDIDATES) {
                                candidates |= std::uint32_t{SB_CANDIDATE_END} << (shift + SB_CANDIDATE_BITS);
                        }
                        return candidates;
                }
                before = code;
        }
        return candidates;
}

std::size_t prefixes_in(const PrefixCensus& census) {
        return std::accumulate(census.of_length.begin(), census.of_length.end(), std::size_t{0});
}

unsigned lengths_in(const PrefixCensus& census) {
        return static_cast<unsigned>(std::ranges::count_if(census.of_length, [](auto count) { return count != 0; }));
}

}  // namespace

// Prefixes of `bits` bits or more stand under the beginning of their own; shorter ones under all that they cover, for
// as long as these are not more than the prefixes themselves.
CandidateCost candidate_cost(const PrefixCensus& census, unsigned bits) {
        const std::size_t limit = prefixes_in(census) + kFewWords;
        const std::size_t beginnings =
                std::accumulate(census.parted_at.begin(), census.parted_at.begin() + bits, std::size_t{1});
        std::size_t long_enough = 0, extended = 0;
        unsigned among = 0;
        CandidateCost result{.shortest = bits};
        for (unsigned length = SB_MAX_LENGTHS; length-- > 0 && among < kMostNumbers;) {
                const std::size_t count = census.of_length[length];
                if (count == 0) {
                        continue;
                }
                if (length >= bits) {
                        long_enough += count;
                } else if (bits - length > kMostExtended || extended + (count << (bits - length)) > limit) {
                        break;
                } else {
                        extended += count << (bits - length);
                }
                result.shortest = length;
                among++;
        }
        const double under_one = std::min(static_cast<double>(long_enough) / static_cast<double>(beginnings),
                                          static_cast<double>(among));
        result.words = beginnings + extended;
        result.cost = under_one + (lengths_in(census) - among) +
                      0.5 * static_cast<double>(extended) / static_cast<double>(limit);
        return result;
}

CandidatePlan plan_candidates(const PrefixCensus& census, std::size_t max_lines) {
        const unsigned lengths = lengths_in(census);
        CandidatePlan best;
        if (lengths < kUnfilteredLengths || (lengths == kUnfilteredLengths && prefixes_in(census) > kNearPrefixes)) {
                return best;
        }
        unsigned longest = SB_MAX_LENGTHS - 1;
        while (census.of_length[longest] == 0) {
                longest--;
        }
        double least = lengths - 1;  // reading the candidates costs as much as a probe
        for (unsigned bits = 1; bits <= longest; bits++) {
                const CandidateCost these = candidate_cost(census, bits);
                // Two words for each that is not empty; four thirds where there is less room.
                const std::size_t wanted = these.words * 2 / SB_LINE_WORDS + 1;
                const std::size_t lines = std::min(wanted, max_lines);
                if (lines != 0 && these.cost < least && lines >= wanted * 2 / 3) {
                        least = these.cost;
                        best = {bits, these.shortest, static_cast<std::uint32_t>(lines)};
                }
        }
        return best;
}

void clear_candidates(std::span<sb_line> words) {
        for (sb_line& line : words) {
                std::fill(std::begin(line.words), std::end(line.words), std::uint32_t{SB_CANDIDATE_END});
        }
}

void add_candidate(std::span<sb_line> words, const sb_length& filter, Family family, const CandidatePlan& plan,
                   unsigned length, std::uint32_t index, std::span<const BucketKey> keys) {
        const auto all = static_cast<std::uint32_t>(words.size() * SB_LINE_WORDS);
        std::array<std::uint32_t*, kAhead> pending{};
        std::size_t turn = 0;
        const auto add = [&](std::uint32_t* word) {
                if (word != nullptr) {
                        *word = with_length(*word, index);
                }
        };
        const auto add_under = [&](std::uint64_t high, std::uint64_t low) {
                const std::uint32_t hash = plan.bits > 64 ? sb_hash_long(high, low & filter.mask, filter.seed)
                                                          : sb_hash(high & filter.mask, filter.seed);
                const std::uint32_t at = sb_scale(hash, all);
                std::uint32_t* word = &words[at / SB_LINE_WORDS].words[at % SB_LINE_WORDS];
                __builtin_prefetch(word, 1);
                add(std::exchange(pending[turn++ % kAhead], word));
        };
        if (length >= plan.bits) {
                for (const BucketKey& key : keys) {
                        add_under(key.high, key.low);
                }
        } else {
                std::vector<BucketKey> extensions;
                for (std::uint32_t i = 0; i < 1U << (plan.bits - length); i++) {
                        SortedRule rest;
                        if (plan.bits <= 64) {
                                rest.high = std::uint64_t{i} << (64 - plan.bits);
                        } else {
                                rest.low = std::uint64_t{i} << (128 - plan.bits);
                                rest.high = length >= 64 ? 0 : i >> (plan.bits - 64);
                        }
                        extensions.push_back(rest.key(family));
                }
                for (const BucketKey& key : keys) {
                        for (const BucketKey& extension : extensions) {
                                add_under(key.high | extension.high, key.low | extension.low);
                        }
                }
        }
        for (std::size_t i = 0; i < kAhead; i++) {
                add(pending[(turn + i) % kAhead]);
        }
}

}  // namespace sockbroker
