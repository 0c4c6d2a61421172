// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/sorted_rules.h"

#include <endian.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <tuple>

#include "broker/dataplane/compile/chains.h"

namespace sockbroker {

namespace {

constexpr std::size_t kFew = 64;  // below this a radix sort does not pay
constexpr std::size_t kMany = 1 << 16;

bool before(const SortedRule& a, const SortedRule& b) {
        return std::tie(a.high, a.low, a.length) < std::tie(b.high, b.low, b.length);
}

// The 24 bits of an address that begin at bit `first`, of which no more than the address has.
std::uint32_t window(const SortedRule& rule, unsigned first) {
        if (first >= 64) {
                return static_cast<std::uint32_t>(rule.low << (first - 64) >> 40);
        }
        std::uint64_t bits = rule.high << first;
        bits |= first == 0 ? 0 : rule.low >> (64 - first);
        return static_cast<std::uint32_t>(bits >> 40);
}

// Least significant digit first, over the `digits` upper bytes of the window.
void radix_sort(std::span<SortedRule> rules, std::span<SortedRule> scratch, unsigned first, unsigned digits) {
        std::array<std::array<std::uint32_t, 256>, 3> counts{};
        for (const SortedRule& rule : rules) {
                const std::uint32_t bits = window(rule, first);
                counts[0][bits & 0xff]++;
                counts[1][bits >> 8 & 0xff]++;
                counts[2][bits >> 16]++;
        }
        std::span<SortedRule> from = rules, to = scratch;
        for (unsigned which = 3 - digits; which < 3; which++) {
                auto& places = counts[which];
                std::uint32_t sum = 0;
                for (std::uint32_t& place : places) {
                        sum += std::exchange(place, sum);
                }
                for (const SortedRule& rule : from) {
                        to[places[window(rule, first) >> (8 * which) & 0xff]++] = rule;
                }
                std::swap(from, to);
        }
        if (from.data() != rules.data()) {
                std::copy(from.begin(), from.end(), rules.begin());
        }
}

}  // namespace

bool SortedRule::covers(const SortedRule& other) const {
        if (length > other.length) {
                return false;
        }
        const std::uint64_t high_mask = length == 0 ? 0 : ~std::uint64_t{0} << (length >= 64 ? 0 : 64 - length);
        const std::uint64_t low_mask = length <= 64 ? 0 : ~std::uint64_t{0} << (128 - length);
        return ((high ^ other.high) & high_mask) == 0 && ((low ^ other.low) & low_mask) == 0;
}

unsigned SortedRule::shared_bits(const SortedRule& other) const {
        return static_cast<unsigned>(high != other.high ? std::countl_zero(high ^ other.high)
                                                        : 64 + std::countl_zero(low ^ other.low));
}

Key SortedRule::key(Family family) const {
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

// Only as many bits are sorted by as tell most rules apart, from the first that differs; the rest is done among equals.
void sort_rules(std::span<SortedRule> rules, std::span<SortedRule> scratch) {
        if (rules.size() < kFew) {
                std::sort(rules.begin(), rules.end(), before);
                return;
        }
        unsigned first = 128;
        for (const SortedRule& rule : rules) {
                first = std::min(first, rules.front().shared_bits(rule));
        }
        if (first == 128) {  // all of one address
                std::sort(rules.begin(), rules.end(), before);
                return;
        }
        const unsigned digits = rules.size() < kMany ? 2 : 3;
        radix_sort(rules, scratch, first, digits);
        const auto sorted_by = [&](const SortedRule& rule) { return window(rule, first) >> (24 - 8 * digits); };
        for (std::size_t begin = 0; begin < rules.size();) {
                const std::uint32_t same = sorted_by(rules[begin]);
                std::size_t end = begin + 1;
                while (end < rules.size() && sorted_by(rules[end]) == same) {
                        end++;
                }
                if (end - begin > 1) {
                        sort_rules(rules.subspan(begin, end - begin), scratch.subspan(begin, end - begin));
                }
                begin = end;
        }
}

}  // namespace sockbroker
