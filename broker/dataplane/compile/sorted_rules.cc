// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/sorted_rules.h"

#include <endian.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <tuple>
#include <utility>

#include "broker/dataplane/compile/chains.h"

namespace sockbroker {

namespace {

constexpr std::size_t kFew = 256;        // below this a radix sort does not pay
constexpr std::size_t kRulesAhead = 32;  // rules that lie all over memory are fetched so long before their turn

// A word has the window of a rule, some bits of its address, and below them its number.
constexpr unsigned kDigitBits = 11;
constexpr unsigned kWindowBits = 3 * kDigitBits;
constexpr unsigned kNumberBits = 64 - kWindowBits;

bool before(const SortedRule& a, const SortedRule& b) {
        return std::tie(a.high, a.low, a.length) < std::tie(b.high, b.low, b.length);
}

// The window that begins at bit `first`. Beyond the end of the address it is 0.
std::uint64_t window(const SortedRule& rule, unsigned first) {
        if (first >= 64) {
                return rule.low << (first - 64) >> kNumberBits;
        }
        std::uint64_t bits = rule.high << first;
        bits |= first == 0 ? 0 : rule.low >> (64 - first);
        return bits >> kNumberBits;
}

// By window, least significant digit first. Both spans are written; returns the one with the result.
std::span<std::uint64_t> radix_sort(std::span<std::uint64_t> words, std::span<std::uint64_t> scratch) {
        constexpr std::uint64_t kDigit = (1U << kDigitBits) - 1;
        std::array<std::array<std::uint32_t, kDigit + 1>, kWindowBits / kDigitBits> counts{};
        for (const std::uint64_t word : words) {
                for (unsigned digit = 0; digit < counts.size(); digit++) {
                        counts[digit][word >> (kNumberBits + digit * kDigitBits) & kDigit]++;
                }
        }
        for (unsigned digit = 0; digit < counts.size(); digit++) {
                auto& places = counts[digit];
                std::exclusive_scan(places.begin(), places.end(), places.begin(), 0U);
                for (const std::uint64_t word : words) {
                        scratch[places[word >> (kNumberBits + digit * kDigitBits) & kDigit]++] = word;
                }
                std::swap(words, scratch);
        }
        return words;
}

// Writes the rules to `to` in their order, and anything to `from`. By the window from the first bit that differs; what
// is equal there is sorted by itself.
void sort_into(std::span<SortedRule> from, std::span<SortedRule> to) {
        unsigned first = 128;
        for (const SortedRule& rule : from) {
                first = std::min(first, from.front().shared_bits(rule));
        }
        if (from.size() < kFew || first == 128) {
                std::ranges::copy(from, to.begin());
                return std::sort(to.begin(), to.end(), before);
        }
        Scratch<std::uint64_t> words(from.size()), scratch(from.size());
        for (std::size_t i = 0; i < from.size(); i++) {
                words[i] = window(from[i], first) << kNumberBits | i;
        }
        const auto order = radix_sort(words, scratch);
        const auto rule_at = [&](std::size_t i) -> const SortedRule& {
                return from[order[i] & ((std::uint64_t{1} << kNumberBits) - 1)];
        };
        for (std::size_t i = 0; i < to.size(); i++) {
                if (i + kRulesAhead < to.size()) {
                        __builtin_prefetch(&rule_at(i + kRulesAhead));
                }
                to[i] = rule_at(i);
        }
        for (std::size_t begin = 0; begin < to.size();) {
                std::size_t end = begin + 1;
                while (end < to.size() && order[end] >> kNumberBits == order[begin] >> kNumberBits) {
                        end++;
                }
                if (end - begin > 1) {
                        const auto part = from.subspan(begin, end - begin);
                        std::ranges::copy(to.subspan(begin, end - begin), part.begin());
                        sort_into(part, to.subspan(begin, end - begin));
                }
                begin = end;
        }
}

std::uint64_t high_mask(unsigned length) {
        return length == 0 ? 0 : ~std::uint64_t{0} << (length >= 64 ? 0 : 64 - length);
}

std::uint64_t low_mask(unsigned length) {
        return length <= 64 ? 0 : ~std::uint64_t{0} << (128 - length);
}

}  // namespace

bool SortedRule::has_host_bits() const {
        return (high & ~high_mask(length)) != 0 || (low & ~low_mask(length)) != 0;
}

bool SortedRule::covers(const SortedRule& other) const {
        return length <= other.length && ((high ^ other.high) & high_mask(length)) == 0 &&
               ((low ^ other.low) & low_mask(length)) == 0;
}

unsigned SortedRule::shared_bits(const SortedRule& other) const {
        return static_cast<unsigned>(high != other.high ? std::countl_zero(high ^ other.high)
                                                        : 64 + std::countl_zero(low ^ other.low));
}

BucketKey SortedRule::key(Family family) const {
        if (family == Family::kIpv4) {
                return {.high = htobe32(static_cast<std::uint32_t>(high >> 32))};
        }
        const auto words = [](std::uint64_t half) {
                return sb_half(htobe32(static_cast<std::uint32_t>(half >> 32)),
                               htobe32(static_cast<std::uint32_t>(half)));
        };
        return {.high = words(high), .low = words(low)};
}

SortedRule sorted_rule_of(const Rule& rule, std::size_t number) {
        std::uint64_t halves[2];
        std::memcpy(halves, rule.prefix.address.bytes.data(), sizeof halves);
        return {.high = be64toh(halves[0]),
                .low = be64toh(halves[1]),
                .rule = static_cast<std::uint32_t>(number),
                .flags = encode(rule, 0).flags,
                .ports = rule.ports,
                .length = rule.prefix.length};
}

void sort_rules(Scratch<SortedRule>& rules) {
        Scratch<SortedRule> sorted(rules.size());
        sort_into(rules, sorted);
        rules.swap(sorted);
}

}  // namespace sockbroker
