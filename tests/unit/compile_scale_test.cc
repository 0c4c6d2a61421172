// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The compiler of rules at size: all prefix lengths, a million bindings, prefixes chosen by an enemy. What a lookup
// reads does not grow, and the room that a binding is given is enough.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "tests/support/walk.h"

namespace sockbroker {
namespace {

using oracle::Generator;

// All prefix lengths, none of which is rare: the rules of one protocol and family, all inside 10.0.0.0/8 or 2600::/8.
std::vector<Rule> of_all_lengths(Family family, unsigned shortest, std::uint32_t count, std::uint32_t seed) {
        std::mt19937 random(seed);
        std::map<Prefix, Rule> rules;
        while (rules.size() < count) {
                Rule next = rule(family == Family::kIpv4 ? "10.0.0.0/8" : "2600::/8", {}, 1 + random() % 1000);
                for (std::size_t i = 1; i < address_bits(family) / 8; i++) {
                        next.prefix.address.bytes[i] = static_cast<std::uint8_t>(random());
                }
                next.absent = random() % 4 == 0 ? Absent::kNext : Absent::kRefuse;
                next.prefix.length =
                        static_cast<std::uint8_t>(shortest + random() % (address_bits(family) + 1 - shortest));
                next.prefix.address = masked(next.prefix.address, next.prefix.length);
                if (random() % 2 == 0) {
                        next.ports = {9, 9};
                }
                rules.emplace(next.prefix, next);
        }
        std::vector<Rule> result;
        for (const auto& [prefix, each] : rules) {
                result.push_back(each);
        }
        return result;
}

Packet packet_within(const Prefix& prefix, std::mt19937& random) {
        Packet result{.protocol = Protocol::kUdp, .to = prefix.address, .port = 9};
        const Address mask = masked({prefix.address.family,
                                     {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}},
                                    prefix.length);
        for (std::size_t i = 0; i < address_bits(prefix.address.family) / 8; i++) {
                result.to.bytes[i] |= static_cast<std::uint8_t>(random() & ~mask.bytes[i]);
        }
        result.from = result.to;
        return result;
}

TEST(Compile, many_prefix_lengths_within_each_other_equal_the_oracle) {
        const auto live = [](ServiceId service) { return service % 3 != 0; };
        for (std::uint32_t seed = 1; seed <= 12; seed++) {
                const Family family = seed % 2 == 0 ? Family::kIpv4 : Family::kIpv6;
                // In a few addresses, so that most prefixes lie within others.
                auto rules = of_all_lengths(family, family == Family::kIpv4 ? 17 : 113, 600, seed);
                std::set<Prefix> seen;
                std::erase_if(rules, [&](Rule& each) {
                        for (std::size_t i = 1; i + 2 < address_bits(family) / 8; i++) {
                                each.prefix.address.bytes[i] = 0;
                        }
                        each.prefix.address.bytes[address_bits(family) / 8 - 2] &= 0x83;
                        return !seen.insert(each.prefix).second;
                });
                const auto compiled = compile_rules(rules, kRoom);
                ASSERT_TRUE(compiled) << compiled.error().text();
                std::mt19937 random(seed);
                for (unsigned i = 0; i < 4000; i++) {
                        const Packet packet = packet_within(rules[random() % rules.size()].prefix, random);
                        ASSERT_EQ(walk(*compiled, packet, live, seed % 2), expected(rules, packet, live))
                                << "seed " << seed << " " << packet.to.to_string();
                }
        }
}

TEST(Compile, rules_that_fill_the_room_do_without_a_filter) {
        const auto rules = of_all_lengths(Family::kIpv4, 8, 20000, 7);
        const auto wide = compile_rules(rules, kRoom);
        ASSERT_TRUE(wide);
        const sb_length& filter = wide->tables[SB_WHICH(1, 0)].filter;
        ASSERT_GT(filter.lines, 0U);
        const std::size_t without = wide->lines.size() - filter.lines;
        const auto narrow = compile_rules(rules, without);
        ASSERT_TRUE(narrow) << narrow.error().text();
        EXPECT_EQ(narrow->tables[SB_WHICH(1, 0)].filter.lines, 0U);
        EXPECT_FALSE(compile_rules(rules, without - 1));
        std::mt19937 random(7);
        for (unsigned i = 0; i < 2000; i++) {
                const Packet packet = packet_within(rules[random() % rules.size()].prefix, random);
                ASSERT_EQ(walk(*narrow, packet, all_live), walk(*wide, packet, all_live));
        }
}

struct Reads {
        double mean = 0;
        unsigned most = 0;
};

// Of hits and misses in turn; every answer is checked.
Reads reads_of(const CompiledRules& compiled, const std::vector<Rule>& rules, unsigned packets) {
        std::mt19937 random(5);
        Reads result;
        for (unsigned i = 0; i < packets; i++) {
                const bool hit = i % 2 == 0;
                Packet packet = packet_within(rules[random() % rules.size()].prefix, random);
                if (!hit) {
                        packet.to.bytes[0] ^= 1;
                }
                EXPECT_EQ(walk(compiled, packet, all_live).verdict == Verdict::kSocket, hit);
                result.most = std::max(result.most, static_cast<unsigned>(lines_read.size()) + tables_read);
                result.mean += static_cast<double>(lines_read.size() + tables_read) / packets;
        }
        return result;
}

// The promise behind the speed: what a lookup reads does not grow with the number of bindings.
TEST(Compile, a_look_up_reads_no_more_of_a_million_bindings_than_of_one) {
        for (const Family family : {Family::kIpv4, Family::kIpv6}) {
                for (const unsigned lengths : {1U, 4U, 12U}) {
                        for (const std::uint32_t count : {1U, 100U, 10000U, kMostBindings}) {
                                std::vector<Rule> rules;
                                std::mt19937_64 random(count);
                                for (std::uint32_t i = 0; i < count; i++) {
                                        // The place of each is its number, scattered, so that no prefix is there twice.
                                        const auto step = static_cast<unsigned>(i % lengths);
                                        Rule next = rule(family == Family::kIpv4 ? "10.0.0.0/8" : "2600::/8", {}, 1);
                                        auto& bytes = next.prefix.address.bytes;
                                        const std::uint32_t place = i * 0x9e3779b1U;
                                        const std::uint64_t bits = random();
                                        std::memcpy(bytes.data() + 8, &bits, 8);
                                        next.prefix.length = static_cast<std::uint8_t>(address_bits(family) - step);
                                        if (family == Family::kIpv4) {
                                                const std::uint32_t address = htonl(place & 0xfeffffff);
                                                std::memcpy(bytes.data(), &address, 4);
                                        } else {
                                                std::memcpy(bytes.data() + 1, &place, 4);
                                                next.prefix.length -= static_cast<std::uint8_t>(4 * step);
                                        }
                                        next.prefix.address = masked(next.prefix.address, next.prefix.length);
                                        rules.push_back(next);
                                }
                                std::sort(rules.begin(), rules.end(),
                                          [](const Rule& a, const Rule& b) { return a.prefix < b.prefix; });
                                rules.erase(
                                        std::unique(rules.begin(), rules.end(),
                                                    [](const Rule& a, const Rule& b) { return a.prefix == b.prefix; }),
                                        rules.end());
                                const auto compiled = compile_rules(rules, lines_for(count));
                                ASSERT_TRUE(compiled) << compiled.error().text();
                                const Reads reads = reads_of(*compiled, rules, 4000);
                                EXPECT_LE(reads.most, 2 + 2 * lengths) << count;
                                EXPECT_LT(reads.mean, lengths == 1 ? 2.5 : 4.5) << count << " bindings of " << lengths;
                        }
                }
        }
}

// One in each of `places` beginnings: prefixes of all lengths that lie within each other.
std::vector<Rule> nested(Family family, unsigned shortest, std::uint32_t places) {
        std::vector<Rule> rules;
        std::mt19937 random(places);
        for (std::uint32_t place = 0; place < places; place++) {
                Rule each = rule(family == Family::kIpv4 ? "10.0.0.0/8" : "2600::/8", {}, 1);
                for (std::size_t i = 1; i < address_bits(family) / 8; i++) {
                        each.prefix.address.bytes[i] = static_cast<std::uint8_t>(random());
                }
                const Address whole = each.prefix.address;
                for (unsigned length = shortest; length <= address_bits(family); length++) {
                        each.prefix = {masked(whole, length), static_cast<std::uint8_t>(length)};
                        each.service = 1 + random() % 1000;
                        each.absent = random() % 4 == 0 ? Absent::kNext : Absent::kRefuse;
                        rules.push_back(each);
                }
        }
        return rules;
}

TEST(Compile, orders_of_lengths_never_lose_a_rule) {
        const auto live = [](ServiceId service) { return service % 3 != 0; };
        const std::vector<std::pair<const char*, std::vector<Rule>>> sets{
                {"spread, IPv4", of_all_lengths(Family::kIpv4, 12, 5000, 1)},
                {"spread, IPv6", of_all_lengths(Family::kIpv6, 24, 5000, 2)},
                {"spread, short ones too", of_all_lengths(Family::kIpv6, 9, 5000, 3)},
                {"more lengths than an order can name", of_all_lengths(Family::kIpv6, 40, 5000, 4)},
                {"all lengths under each other, IPv6", nested(Family::kIpv6, 40, 40)},
                {"all lengths under each other, IPv4", nested(Family::kIpv4, 9, 150)},
        };
        for (const auto& [name, all] : sets) {
                std::map<Prefix, Rule> unique;
                for (const Rule& each : all) {
                        unique.emplace(each.prefix, each);
                }
                std::vector<Rule> rules;
                for (const auto& [prefix, each] : unique) {
                        rules.push_back(each);
                }
                const auto compiled = compile_rules(rules, kRoom);
                ASSERT_TRUE(compiled) << compiled.error().text();
                const Family family = rules.front().prefix.address.family;
                const sb_table& table = compiled->tables[SB_WHICH(1, static_cast<unsigned>(family))];
                EXPECT_GT(table.filter.lines, 0U) << name;
                std::mt19937 random(9);
                for (unsigned i = 0; i < 4000; i++) {
                        Packet packet = packet_within(rules[random() % rules.size()].prefix, random);
                        if (i % 4 == 0) {  // beside it
                                const unsigned bit = 8 + random() % (address_bits(family) - 8);
                                packet.to.bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80 >> bit % 8);
                        }
                        ASSERT_EQ(walk(*compiled, packet, live, i % 2), expected(rules, packet, live))
                                << name << ": " << packet.to.to_string();
                }
        }
}

// Whoever writes prefixes into one place of the filter makes lookups there as slow as without it, and no others.
TEST(Compile, prefixes_that_crowd_one_beginning_cost_the_others_nothing) {
        std::vector<Rule> rules = nested(Family::kIpv6, 41, 1);
        const std::vector<Rule> others = of_all_lengths(Family::kIpv6, 96, 5000, 3);
        rules.insert(rules.end(), others.begin(), others.end());
        for (Rule& each : rules) {
                each.absent = Absent::kRefuse;
        }
        const auto compiled = compile_rules(rules, kRoom);
        ASSERT_TRUE(compiled) << compiled.error().text();
        EXPECT_LE(reads_of(*compiled, others, 4000).mean, 4.5);
}

// Prefixes as an enemy of the hash would choose them: they differ in few bits, in every place.
TEST(Compile, regular_prefix_sets_stay_within_the_bound) {
        for (unsigned stride = 0; stride <= 24; stride += 4) {
                std::vector<Rule> rules;
                for (std::uint32_t i = 0; i < 20000; i++) {
                        Rule v4 = rule("0.0.0.0/0", {}, 1 + i % 1000);
                        const std::uint32_t address =
                                htonl(0x0a000000 ^ (i << stride % 17 | i >> (32 - stride % 17) % 32));
                        std::memcpy(v4.prefix.address.bytes.data(), &address, 4);
                        v4.prefix.length = 32;
                        Rule v6 = rule("2606::/128", {}, 1 + i % 1000);
                        v6.prefix.address.bytes[2 + stride / 2] = static_cast<std::uint8_t>(i >> 8);
                        v6.prefix.address.bytes[3 + stride / 2 % 12] = static_cast<std::uint8_t>(i);
                        v6.prefix.length = 128;
                        rules.push_back(v4);
                        rules.push_back(v6);
                }
                const auto compiled = compile_rules(rules, kRoom);
                ASSERT_TRUE(compiled) << compiled.error().text();
                EXPECT_LT(compiled->lines.size(), 20000 / 3 + 20000 * 2 / 3 + 20U) << "at least three quarters full";
                for (const Rule& each : rules) {
                        const Packet to{.protocol = Protocol::kUdp, .to = each.prefix.address, .port = 9};
                        ASSERT_EQ(walk(*compiled, to, all_live).verdict, Verdict::kSocket) << to.to.to_string();
                }
        }
}

TEST(Compile, the_default_capacity_holds_its_bindings_whatever_they_are) {
        const auto fits = [](const std::function<void(Rule&, std::uint32_t)>& shape) {
                std::mt19937_64 random(7);
                std::vector<Rule> rules(65536);
                for (std::uint32_t i = 0; i < rules.size(); i++) {
                        rules[i] = rule("::/128", {}, 1 + i % 1000);
                        const std::uint64_t bits[2] = {random(), random()};
                        std::memcpy(rules[i].prefix.address.bytes.data(), bits, 16);
                        shape(rules[i], i);
                }
                return compile_rules(rules, lines_for(65536));
        };
        const auto plain = fits([](Rule&, std::uint32_t) {});
        EXPECT_TRUE(plain) << plain.error().text();
        const auto conditions = fits([](Rule& r, std::uint32_t) { r.source = *parse_prefix("2a00::/64"); });
        EXPECT_TRUE(conditions) << conditions.error().text();
        const auto six_ports = fits([](Rule& r, std::uint32_t i) {
                const std::uint32_t host = i / 6;
                r.prefix.address.bytes.fill(0);
                std::memcpy(r.prefix.address.bytes.data(), &host, 4);
                r.ports = {static_cast<std::uint16_t>(10 + 2 * (i % 6)), static_cast<std::uint16_t>(10 + 2 * (i % 6))};
        });
        EXPECT_TRUE(six_ports) << six_ports.error().text();
        const auto one_prefix = fits([](Rule& r, std::uint32_t i) {
                r.prefix = *parse_prefix("1.0.0.0/24");
                r.ports = {static_cast<std::uint16_t>(i + 1), static_cast<std::uint16_t>(i + 1)};
                r.ports.first = r.ports.last = i == 65535 ? std::uint16_t{1} : r.ports.first;
                r.service = i == 65535 ? 1 : r.service;
        });
        ASSERT_TRUE(one_prefix) << one_prefix.error().text();
        EXPECT_EQ(walk(*one_prefix, packet("1.0.0.1", 65535), all_live).service, 1 + 65534 % 1000U);
        EXPECT_EQ(walk(*one_prefix, packet("1.0.0.1", 1), all_live).service, 1U);
}

}  // namespace
}  // namespace sockbroker
