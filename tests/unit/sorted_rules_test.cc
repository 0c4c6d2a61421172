// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The order of the compiler's rules beside std::sort, for addresses that lie as policies have them and as an enemy
// would choose them.
#include "broker/dataplane/compile/sorted_rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

namespace sockbroker {
namespace {

using Order = std::tuple<std::uint64_t, std::uint64_t, unsigned>;

Order order_of(const SortedRule& rule) {
        return {rule.high, rule.low, rule.length};
}

void expect_sorted(Scratch<SortedRule> rules, const char* what) {
        std::vector<Order> wanted, got;
        std::ranges::transform(rules, std::back_inserter(wanted), order_of);
        std::ranges::sort(wanted);
        std::vector<bool> seen(rules.size());
        for (std::uint32_t i = 0; i < rules.size(); i++) {
                rules[i].rule = i;
        }
        sort_rules(rules);
        for (const SortedRule& rule : rules) {
                got.push_back(order_of(rule));
                ASSERT_FALSE(seen[rule.rule]) << what;
                seen[rule.rule] = true;
        }
        EXPECT_EQ(got, wanted) << what;
}

// Each half of an address has random bits where its mask has ones.
Scratch<SortedRule> random_rules(std::size_t count, std::uint64_t high_mask, std::uint64_t low_mask) {
        std::mt19937_64 random(count);
        Scratch<SortedRule> rules(count);
        for (SortedRule& rule : rules) {
                rule = {.high = 0x2000000000000000 | (random() & high_mask),
                        .low = random() & low_mask,
                        .length = static_cast<std::uint8_t>(96 + random() % 33)};
        }
        return rules;
}

TEST(SortedRules, AnySetOfAddressesIsSortedAsBySortingThem) {
        constexpr std::uint64_t kAll = ~std::uint64_t{0};
        for (const std::size_t count : {0U, 1U, 2U, 255U, 256U, 5000U, 300000U}) {
                expect_sorted(random_rules(count, kAll, kAll), "spread");
                expect_sorted(random_rules(count, kAll << 32, 0), "IPv4");
                expect_sorted(random_rules(count, 0, 0), "one address, many lengths");
                expect_sorted(random_rules(count, 0, 0xffff), "hosts of one IPv6 network");
                expect_sorted(random_rules(count, 0xf, 0xff00000000000000), "across the halves");
                expect_sorted(random_rules(count, 0x8000000000000000, 0xff), "far apart, and close together in each");
                expect_sorted(random_rules(count, 0xf000000000000f00, 0xf0000000000f0), "clusters within clusters");
        }
}

TEST(SortedRules, OneAddressForEachBitIsSorted) {
        Scratch<SortedRule> rules;
        for (unsigned round = 0; round < 10; round++) {
                for (unsigned bit = 0; bit < 64; bit++) {
                        rules.push_back({.high = std::uint64_t{1} << bit, .low = 0, .length = 64});
                        rules.push_back({.high = 0, .low = std::uint64_t{1} << bit, .length = 128});
                }
        }
        expect_sorted(std::move(rules), "each bit");
}

}  // namespace
}  // namespace sockbroker
