// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/candidates.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "broker/dataplane/compile/sorted_rules.h"

namespace sockbroker {

namespace {

constexpr unsigned kMostNumbers = SB_CANDIDATE_END - 1;  // lengths that a code can name
constexpr unsigned kMostContinued = 20;                  // bits by which a prefix is continued to fill words
constexpr std::size_t kFewMarks = 4096;                  // so many are never too many
constexpr std::size_t kAhead = 16;                       // words are fetched so long before their turn
constexpr std::uint32_t kMask = (1U << SB_CANDIDATE_BITS) - 1;

// Appends a length where the order ends. Where it does not, whatever comes is probed anyway.
std::uint32_t with_length(std::uint32_t order, std::uint32_t index) {
        std::uint32_t before = 0;
        for (unsigned shift = 0; shift < SB_CANDIDATE_BITS * SB_CANDIDATES; shift += SB_CANDIDATE_BITS) {
                const std::uint32_t code = order >> shift & kMask;
                if (code == SB_CANDIDATE_END) {
                        if (before == index + 1) {
                                return order;
                        }
                        order &= ~(kMask << shift);
                        order |= (index + 1) << shift;
                        if (shift + SB_CANDIDATE_BITS < SB_CANDIDATE_BITS * SB_CANDIDATES) {
                                order |= std::uint32_t{SB_CANDIDATE_END} << (shift + SB_CANDIDATE_BITS);
                        }
                        return order;
                }
                before = code;
        }
        return order;
}

}  // namespace

CandidatePlan plan_candidates(const LengthCounts& entries, const LengthCounts& shared, std::size_t max_lines) {
        std::vector<unsigned> used;  // longest first
        std::size_t all = 0;
        for (unsigned length = SB_MAX_LENGTHS; length-- > 0;) {
                if (entries[length] != 0) {
                        used.push_back(length);
                        all += entries[length];
                }
        }
        CandidatePlan best;
        if (used.size() < kUnfilteredLengths || (used.size() == kUnfilteredLengths && all > kFewOrdered)) {
                return best;
        }
        // Lengths that are probed for a hit, of those that stand in vain: with an order less, or there is no point in
        // it.
        double least = static_cast<double>(used.size()) - 1;
        std::size_t cells = 1;
        for (unsigned bits = 1; bits < SB_MAX_LENGTHS; bits++) {
                cells += shared[bits - 1];
                std::size_t deep = 0, marks = 0, numbered = 0;
                unsigned shortest = bits;
                for (const unsigned length : used) {
                        if (numbered == kMostNumbers) {
                                break;
                        }
                        if (length < bits) {
                                if (bits - length > kMostContinued) {
                                        break;
                                }
                                const std::size_t more = std::size_t{entries[length]} << (bits - length);
                                if (marks + more > all + kFewMarks) {
                                        break;
                                }
                                marks += more;
                        } else {
                                deep += entries[length];
                        }
                        shortest = length;
                        numbered++;
                }
                const double in_cell =
                        std::min(static_cast<double>(deep) / static_cast<double>(cells), static_cast<double>(numbered));
                const double cost = in_cell + static_cast<double>(used.size() - numbered) +
                                    0.5 * static_cast<double>(marks) / static_cast<double>(all + kFewMarks);
                // Two places for each beginning; four thirds where there is less room.
                const std::size_t wanted = (cells + marks) * 2 / SB_LINE_WORDS + 1;
                const std::size_t lines = std::min(wanted, max_lines);
                if (lines != 0 && cost < least && lines >= wanted * 2 / 3) {
                        least = cost;
                        best = {bits, shortest, static_cast<std::uint32_t>(lines)};
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
                   unsigned length, std::uint32_t index, std::span<const Key> keys) {
        const auto places = static_cast<std::uint32_t>(words.size() * SB_LINE_WORDS);
        std::array<std::uint32_t*, kAhead> pending{};
        std::size_t turn = 0;
        const auto add = [&](std::uint32_t* place) {
                if (place != nullptr) {
                        *place = with_length(*place, index);
                }
        };
        const auto add_beginning = [&](std::uint64_t high, std::uint64_t low) {
                const std::uint32_t hash = plan.bits > 64 ? sb_hash_long(high, low & filter.mask, filter.seed)
                                                          : sb_hash(high & filter.mask, filter.seed);
                const std::uint32_t at = sb_scale(hash, places);
                std::uint32_t* place = &words[at / SB_LINE_WORDS].words[at % SB_LINE_WORDS];
                __builtin_prefetch(place, 1);
                add(std::exchange(pending[turn++ % kAhead], place));
        };
        if (length >= plan.bits) {
                for (const Key& key : keys) {
                        add_beginning(key.high, key.low);
                }
        } else {
                std::vector<Key> continuations;
                for (std::uint32_t i = 0; i < 1U << (plan.bits - length); i++) {
                        SortedRule item;
                        if (plan.bits <= 64) {
                                item.high = std::uint64_t{i} << (64 - plan.bits);
                        } else {
                                item.low = std::uint64_t{i} << (128 - plan.bits);
                                item.high = length >= 64 ? 0 : i >> (plan.bits - 64);
                        }
                        continuations.push_back(item.key(family));
                }
                for (const Key& key : keys) {
                        for (const Key& continuation : continuations) {
                                add_beginning(key.high | continuation.high, key.low | continuation.low);
                        }
                }
        }
        for (std::size_t i = 0; i < kAhead; i++) {
                add(pending[(turn + i) % kAhead]);
        }
}

}  // namespace sockbroker
