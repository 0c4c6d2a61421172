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

constexpr unsigned kDigits = 8;   // of the upper half of an address
constexpr std::size_t kFew = 64;  // below this a radix sort does not pay

bool before(const Item& a, const Item& b) {
        return std::tie(a.high, a.low, a.length) < std::tie(b.high, b.low, b.length);
}

unsigned digit(const Item& item, unsigned which) {
        return item.high >> (8 * which) & 0xff;
}

// Least significant digit first, over the upper half alone.
void radix_sort(std::vector<Item>& items) {
        std::array<std::array<std::uint32_t, 256>, kDigits> counts{};
        for (const Item& item : items) {
                for (unsigned which = 0; which < kDigits; which++) {
                        counts[which][digit(item, which)]++;
                }
        }
        std::vector<Item> other(items.size());
        for (unsigned which = 0; which < kDigits; which++) {
                auto& places = counts[which];
                if (places[digit(items.front(), which)] == items.size()) {
                        continue;  // all alike
                }
                std::uint32_t sum = 0;
                for (std::uint32_t& place : places) {
                        sum += std::exchange(place, sum);
                }
                for (const Item& item : items) {
                        other[places[digit(item, which)]++] = item;
                }
                items.swap(other);
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

Item item_of(const Rule& rule) {
        std::uint64_t halves[2];
        std::memcpy(halves, rule.prefix.address.bytes.data(), sizeof halves);
        return {.high = be64toh(halves[0]),
                .low = be64toh(halves[1]),
                .rule = &rule,
                .ports = rule.ports,
                .meta = encode(rule, 0).meta,
                .length = rule.prefix.length};
}

void sort_items(std::vector<Item>& items) {
        if (items.size() < kFew) {
                std::sort(items.begin(), items.end(), before);
                return;
        }
        radix_sort(items);
        for (std::size_t begin = 0; begin < items.size();) {
                std::size_t end = begin + 1;
                while (end < items.size() && items[end].high == items[begin].high) {
                        end++;
                }
                if (end - begin > 1) {
                        std::sort(items.begin() + static_cast<std::ptrdiff_t>(begin),
                                  items.begin() + static_cast<std::ptrdiff_t>(end), before);
                }
                begin = end;
        }
}

}  // namespace sockbroker
