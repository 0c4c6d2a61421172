// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/items.h"

#include <endian.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <tuple>

#include "broker/dataplane/chains.h"

namespace sockbroker {

namespace {

constexpr std::size_t kFew = 64;  // below this a radix sort does not pay
constexpr std::size_t kMany = 1 << 16;

bool before(const Item& a, const Item& b) {
        return std::tie(a.high, a.low, a.length) < std::tie(b.high, b.low, b.length);
}

// The 24 bits of an address that begin at bit `first`, of which no more than the address has.
std::uint32_t window(const Item& item, unsigned first) {
        if (first >= 64) {
                return static_cast<std::uint32_t>(item.low << (first - 64) >> 40);
        }
        std::uint64_t bits = item.high << first;
        bits |= first == 0 ? 0 : item.low >> (64 - first);
        return static_cast<std::uint32_t>(bits >> 40);
}

// Least significant digit first, over the `digits` upper bytes of the window.
void radix_sort(std::span<Item> items, std::span<Item> scratch, unsigned first, unsigned digits) {
        std::array<std::array<std::uint32_t, 256>, 3> counts{};
        for (const Item& item : items) {
                const std::uint32_t bits = window(item, first);
                counts[0][bits & 0xff]++;
                counts[1][bits >> 8 & 0xff]++;
                counts[2][bits >> 16]++;
        }
        std::span<Item> from = items, to = scratch;
        for (unsigned which = 3 - digits; which < 3; which++) {
                auto& places = counts[which];
                std::uint32_t sum = 0;
                for (std::uint32_t& place : places) {
                        sum += std::exchange(place, sum);
                }
                for (const Item& item : from) {
                        to[places[window(item, first) >> (8 * which) & 0xff]++] = item;
                }
                std::swap(from, to);
        }
        if (from.data() != items.data()) {
                std::copy(from.begin(), from.end(), items.begin());
        }
}

}  // namespace

bool Item::covers(const Item& other) const {
        if (length > other.length) {
                return false;
        }
        const std::uint64_t high_mask = length == 0 ? 0 : ~std::uint64_t{0} << (length >= 64 ? 0 : 64 - length);
        const std::uint64_t low_mask = length <= 64 ? 0 : ~std::uint64_t{0} << (128 - length);
        return ((high ^ other.high) & high_mask) == 0 && ((low ^ other.low) & low_mask) == 0;
}

unsigned Item::shared_bits(const Item& other) const {
        return static_cast<unsigned>(high != other.high ? std::countl_zero(high ^ other.high)
                                                        : 64 + std::countl_zero(low ^ other.low));
}

Key Item::key(Family family) const {
        if (family == Family::kIpv4) {
                return {.high = htobe32(static_cast<std::uint32_t>(high >> 32))};
        }
        const auto words = [](std::uint64_t half) {
                return sb_half(htobe32(static_cast<std::uint32_t>(half >> 32)),
                               htobe32(static_cast<std::uint32_t>(half)));
        };
        return {.high = words(high), .low = words(low)};
}

Item item_of(const Rule& rule, std::size_t number) {
        std::uint64_t halves[2];
        std::memcpy(halves, rule.prefix.address.bytes.data(), sizeof halves);
        return {.high = be64toh(halves[0]),
                .low = be64toh(halves[1]),
                .rule = static_cast<std::uint32_t>(number),
                .meta = encode(rule, 0).meta,
                .ports = rule.ports,
                .length = rule.prefix.length};
}

// Only as many bits are sorted by as tell most items apart, from the first that differs; the rest is done among equals.
void sort_items(std::span<Item> items, std::span<Item> scratch) {
        if (items.size() < kFew) {
                std::sort(items.begin(), items.end(), before);
                return;
        }
        unsigned first = 128;
        for (const Item& item : items) {
                first = std::min(first, items.front().shared_bits(item));
        }
        if (first == 128) {  // all of one address
                std::sort(items.begin(), items.end(), before);
                return;
        }
        const unsigned digits = items.size() < kMany ? 2 : 3;
        radix_sort(items, scratch, first, digits);
        const auto sorted_by = [&](const Item& item) { return window(item, first) >> (24 - 8 * digits); };
        for (std::size_t begin = 0; begin < items.size();) {
                const std::uint32_t same = sorted_by(items[begin]);
                std::size_t end = begin + 1;
                while (end < items.size() && sorted_by(items[end]) == same) {
                        end++;
                }
                if (end - begin > 1) {
                        sort_items(items.subspan(begin, end - begin), scratch.subspan(begin, end - begin));
                }
                begin = end;
        }
}

}  // namespace sockbroker
