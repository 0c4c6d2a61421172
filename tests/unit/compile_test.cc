// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The compiler of rules against the specification. What it writes is walked by bpf/walk.h, the very lines that the
// kernel runs.
#include "broker/dataplane/compile/compile.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "bpf/walk.h"
#include "broker/dataplane/compile/port_table.h"
#include "tests/support/oracle.h"

namespace {

struct CompiledRules {
        std::vector<sb_line> lines;      // from the start of the generation
        std::array<sb_table, 4> tables;  // by SB_WHICH()
};

const CompiledRules* walked;
std::uint32_t walked_generation;
const std::function<bool(sockbroker::ServiceId)>* walked_live;
sockbroker::ServiceId last_tried;
unsigned tries;
std::set<__u32> lines_read;  // each once: again it is in the cache
unsigned tables_read;
constexpr std::uint32_t kLines = 1 << 22;  // of a generation; the second begins there

// In every second walk, so that both ways are compared with the oracle.
bool newest_takes;

// While it lives, the program walks these rules.
struct Walk {
        Walk(const CompiledRules& rules, std::uint32_t generation) {
                walked = &rules;
                walked_generation = generation;
        }
        Walk(const Walk&) = delete;
        Walk& operator=(const Walk&) = delete;
        ~Walk() { walked = nullptr; }
};

// Counters of rules of their own, in the order in which they counted.
std::vector<std::pair<std::uint32_t, bool>> counted;

}  // namespace

// What the program has maps and helpers for.
const sb_line* sb_line_at(__u32 index) {
        lines_read.insert(index);
        const __u32 base = walked_generation != 0 ? kLines : 0;
        return index - base < walked->lines.size() ? &walked->lines[index - base] : nullptr;
}

const sb_table* sb_table_at(__u32 index) {
        tables_read = 1;  // again in each function, but it is the same
        return &walked->tables.at(index - (walked_generation != 0 ? 4 : 0));
}

int sb_deliver_newest(bpf_sk_lookup*, __u32, __u32 service) {
        newest_takes = !newest_takes;
        if (!newest_takes || !(*walked_live)(service)) {
                return 0;
        }
        last_tried = service;
        tries++;
        return 1;
}

int sb_deliver(bpf_sk_lookup*, __u32, __u32 service) {
        last_tried = service;
        tries++;
        return (*walked_live)(service) ? 1 : 0;
}

void sb_count(__u32 counter, int delivered) {
        counted.emplace_back(counter, delivered != 0);
}

namespace sockbroker {
namespace {

using oracle::Answer;
using oracle::Generator;
using oracle::Packet;
using oracle::Verdict;

constexpr std::size_t kRoom = 1 << 20;
constexpr std::uint32_t kMostBindings = 1000000;

// Compiles in one piece of memory for all, of which only what was written is copied: under MALLOC_PERTURB_ a new room
// for each would take longer than all tests.
Result<CompiledRules> compile_rules(const std::vector<Rule>& rules, std::size_t max_lines) {
        static std::vector<sb_line> room(std::max<std::size_t>(kRoom, lines_for(kMostBindings)));
        CompiledRules result{};
        const auto size = compile_into(rules, std::span(room).first(max_lines), result.tables);
        if (!size) {
                return std::unexpected(size.error());
        }
        result.lines.assign(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(*size));
        return result;
}

Answer walk(const CompiledRules& compiled, const Packet& packet, const std::function<bool(ServiceId)>& live,
            std::uint32_t generation = 0) {
        bpf_sk_lookup ctx{};
        const bool v4 = packet.to.family == Family::kIpv4;
        ctx.family = v4 ? AF_INET : AF_INET6;
        ctx.protocol = packet.protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        std::memcpy(v4 ? &ctx.local_ip4 : &ctx.local_ip6[0], packet.to.bytes.data(), v4 ? 4 : 16);
        std::memcpy(v4 ? &ctx.remote_ip4 : &ctx.remote_ip6[0], packet.from.bytes.data(), v4 ? 4 : 16);
        ctx.local_port = packet.port;
        ctx.ingress_ifindex = packet.ifindex;
        const Walk walk(compiled, generation);
        walked_live = &live;
        last_tried = 0;
        tries = 0;
        lines_read.clear();
        counted.clear();
        tables_read = 0;
        const int verdict = sb_walk(&ctx, generation, kLines);
        if (tries == 0 || (verdict == SK_PASS && last_tried != 0 && !live(last_tried))) {
                // Passed on: by a rule that says so, or because nothing was left; the oracle tells these apart below.
                return {Verdict::kPass, 0};
        }
        return {verdict == SK_DROP ? Verdict::kRefused : Verdict::kSocket, last_tried};
}

Answer expected(const std::vector<Rule>& rules, const Packet& packet, const std::function<bool(ServiceId)>& live) {
        Answer answer = oracle::ask(rules, packet, live);
        if (answer.verdict == Verdict::kPass) {
                answer.service = 0;
        }
        return answer;
}

// Which counters must have counted: of each rule that was tried, up to the one that decided.
std::vector<std::pair<std::uint32_t, bool>> counting(const std::vector<Rule>& rules, const Packet& packet,
                                                     const std::function<bool(ServiceId)>& live) {
        std::vector<const Rule*> found;
        for (const Rule& rule : rules) {
                if (oracle::matches(rule, packet)) {
                        found.push_back(&rule);
                }
        }
        std::sort(found.begin(), found.end(), oracle::more_specific);
        std::vector<std::pair<std::uint32_t, bool>> result;
        for (const Rule* rule : found) {
                const bool served = live(rule->service);
                if (rule->counter != 0) {
                        result.emplace_back(rule->counter, served);
                }
                if (served || rule->absent != Absent::kNext) {
                        break;
                }
        }
        return result;
}

bool all_live(ServiceId) {
        return true;
}

Rule rule(std::string_view prefix, PortRange ports, ServiceId service, Absent absent = Absent::kRefuse) {
        return {.protocol = Protocol::kUdp,
                .prefix = *parse_prefix(prefix),
                .ports = ports,
                .service = service,
                .absent = absent};
}

Packet packet(std::string_view to, std::uint16_t port, std::string_view from = "", std::uint32_t ifindex = 0) {
        Packet result{.protocol = Protocol::kUdp, .to = *parse_address(to), .port = port, .ifindex = ifindex};
        result.from = from.empty() ? result.to : *parse_address(from);
        return result;
}

ServiceId asked(const std::vector<Rule>& rules, const Packet& packet,
                const std::function<bool(ServiceId)>& live = all_live) {
        const auto compiled = compile_rules(rules, kRoom);
        EXPECT_TRUE(compiled) << compiled.error().text();
        const Answer answer = walk(*compiled, packet, live);
        return answer.verdict == Verdict::kSocket ? answer.service : 0;
}

void compare(const oracle::Shape& shape, std::uint32_t first_seed, std::uint32_t sets, std::uint32_t packets) {
        for (std::uint32_t seed = first_seed; seed < first_seed + sets; seed++) {
                Generator generator(seed);
                auto rules = generator.rules(shape);
                for (std::uint32_t i = 0; seed % 3 == 0 && i < rules.size(); i++) {
                        rules[i].counter = generator.chance(0.5) ? i + 1 : 0;
                }
                const auto compiled = compile_rules(rules, kRoom);
                ASSERT_TRUE(compiled) << compiled.error().text();
                for (std::uint32_t i = 0; i < packets; i++) {
                        const Packet packet = generator.packet(rules);
                        const std::uint32_t dead = generator.below(1 << 8);
                        const auto live = [&](ServiceId service) { return (dead >> (service % 8) & 1) == 0; };
                        const Answer want = expected(rules, packet, live);
                        const Answer got = walk(*compiled, packet, live, seed % 2);
                        ASSERT_EQ(got, want)
                                << "seed " << seed << ": " << to_string(packet.protocol) << " " << packet.to.to_string()
                                << " port " << packet.port << " from " << packet.from.to_string() << " if "
                                << packet.ifindex << ": got " << got.service << ", want " << want.service;
                        ASSERT_EQ(counted, counting(rules, packet, live)) << "seed " << seed;
                }
        }
}

TEST(Compile, no_rules_pass_everything) {
        EXPECT_EQ(asked({}, packet("1.0.0.1", 53)), 0U);
        EXPECT_EQ(asked({}, packet("::1", 53)), 0U);
}

TEST(Compile, the_longest_prefix_wins) {
        const std::vector<Rule> rules{rule("0.0.0.0/0", {53, 53}, 1), rule("1.0.0.0/8", {53, 53}, 2),
                                      rule("1.0.0.0/24", {53, 53}, 3), rule("1.0.0.7/32", {53, 53}, 4)};
        EXPECT_EQ(asked(rules, packet("9.9.9.9", 53)), 1U);
        EXPECT_EQ(asked(rules, packet("1.2.0.0", 53)), 2U);
        EXPECT_EQ(asked(rules, packet("1.0.0.8", 53)), 3U);
        EXPECT_EQ(asked(rules, packet("1.0.0.7", 53)), 4U);
}

TEST(Compile, a_longer_prefix_wins_over_a_narrower_port) {
        const std::vector<Rule> rules{rule("1.0.0.0/24", {}, 1), rule("1.0.0.0/16", {53, 53}, 2)};
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 53)), 1U);
        EXPECT_EQ(asked(rules, packet("1.0.1.1", 53)), 2U);
}

TEST(Compile, exact_port_then_narrower_range_then_any) {
        const std::vector<Rule> rules{rule("1.0.0.0/24", {}, 1), rule("1.0.0.0/24", {1000, 2000}, 2),
                                      rule("1.0.0.0/24", {1500, 1600}, 3), rule("1.0.0.0/24", {1550, 1550}, 4)};
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 1)), 1U);
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 1000)), 2U);
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 1600)), 3U);
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 1550)), 4U);
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 65535)), 1U);
}

TEST(Compile, a_prefix_without_the_port_lets_the_covering_one_answer) {
        EXPECT_EQ(asked({rule("1.0.0.0/24", {53, 53}, 1), rule("1.0.0.0/8", {80, 80}, 2)}, packet("1.0.0.1", 80)), 2U);
}

TEST(Compile, sources_and_interfaces) {
        std::vector<Rule> rules{rule("2606:4700::/32", {}, 1), rule("2606:4700::/32", {}, 2),
                                rule("2606:4700::/32", {}, 3), rule("2606:4700::/32", {}, 4)};
        rules[1].source = *parse_prefix("2001:db8::/32");
        rules[2].source = *parse_prefix("2001:db8:0:1::/65");
        rules[3].ifindex = 7;
        EXPECT_EQ(asked(rules, packet("2606:4700::1", 53, "2a00::1")), 1U);
        EXPECT_EQ(asked(rules, packet("2606:4700::1", 53, "2001:db8:1::1", 7)), 2U) << "source goes before interface";
        EXPECT_EQ(asked(rules, packet("2606:4700::1", 53, "2001:db8:0:1:7fff::1")), 3U);
        EXPECT_EQ(asked(rules, packet("2606:4700::1", 53, "2001:db8:0:1:8000::1")), 2U);
        EXPECT_EQ(asked(rules, packet("2606:4700::1", 53, "2a00::1", 7)), 4U);
}

TEST(Compile, a_source_of_the_other_family_matches_nobody) {
        Rule other = rule("1.0.0.0/24", {}, 1);
        other.source = *parse_prefix("::/0");
        EXPECT_EQ(asked({other}, packet("1.0.0.1", 53)), 0U);
}

TEST(Compile, short_prefixes_do_not_cover_loopback) {
        EXPECT_EQ(asked({rule("0.0.0.0/0", {}, 1)}, packet("127.0.0.53", 53)), 0U);
        EXPECT_EQ(asked({rule("126.0.0.0/7", {}, 1)}, packet("127.0.0.53", 53)), 0U);
        EXPECT_EQ(asked({rule("127.0.0.0/8", {}, 1)}, packet("127.0.0.53", 53)), 1U);
        EXPECT_EQ(asked({rule("::/15", {}, 1)}, packet("::1", 53)), 0U);
        EXPECT_EQ(asked({rule("::/15", {}, 1)}, packet("::2", 53)), 1U);
        EXPECT_EQ(asked({rule("::/16", {}, 1)}, packet("::1", 53)), 1U);
        // Nor by way of a longer prefix that leads on to it.
        const std::vector<Rule> rules{rule("::/16", {80, 80}, 1), rule("::/0", {}, 2)};
        EXPECT_EQ(asked(rules, packet("::1", 53)), 0U);
        EXPECT_EQ(asked(rules, packet("::2", 53)), 2U);
}

TEST(Compile, families_never_meet) {
        EXPECT_EQ(asked({rule("::/0", {}, 1)}, packet("1.0.0.1", 80)), 0U);
        EXPECT_EQ(asked({rule("0.0.0.0/0", {}, 1)}, packet("2a00::1", 80)), 0U);
}

TEST(Compile, when_absent_next_goes_down_the_whole_order) {
        const std::vector<Rule> rules{rule("1.0.0.0/24", {53, 53}, 1, Absent::kNext),
                                      rule("1.0.0.0/24", {1, 100}, 2, Absent::kNext),
                                      rule("1.0.0.0/8", {53, 53}, 3, Absent::kNext), rule("0.0.0.0/0", {}, 4)};
        for (ServiceId dead = 0; dead <= 3; dead++) {
                EXPECT_EQ(asked(rules, packet("1.0.0.1", 53), [&](ServiceId service) { return service > dead; }),
                          dead + 1);
        }
}

TEST(Compile, random_rules_equal_the_oracle) {
        compare({.rules = 60}, 1, 150, 400);
}

TEST(Compile, random_rules_without_conditions_equal_the_oracle) {
        compare({.rules = 300, .conditions = 0, .next = 0.1}, 1000, 30, 400);
}

TEST(Compile, many_port_ranges_on_few_prefixes_equal_the_oracle) {
        compare({.rules = 400, .conditions = 0, .many_ports = true}, 2000, 20, 500);
        compare({.rules = 250, .conditions = 0.3, .many_ports = true}, 3000, 20, 500);
        compare({.rules = 250, .conditions = 0.9, .next = 0.8, .many_ports = true}, 4000, 20, 500);
}

TEST(Compile, a_port_table_of_any_size_has_the_interval_of_each_port) {
        for (const std::uint32_t count : {1U, 2U, 31U, 32U, 33U, 571U, 1024U, 1025U, 32768U, 32769U, 65535U, 65536U}) {
                std::vector<std::uint16_t> starts;
                std::vector<std::uint32_t> references;
                for (std::uint32_t i = 0; i < count; i++) {
                        starts.push_back(static_cast<std::uint16_t>(std::uint64_t{i} * 65536 / count));
                        references.push_back(1000 + i);
                }
                std::vector<sb_line> room(8000);
                RuleMemory lines(room);
                lines.resize(1);
                const std::uint32_t first = write_port_table(lines, starts, references);
                ASSERT_FALSE(lines.overflowed());
                const CompiledRules compiled{.lines = std::move(room)};
                const Walk walk(compiled, 0);
                for (std::uint32_t port = 0; port < 65536; port++) {
                        const auto after = std::upper_bound(starts.begin(), starts.end(), port);
                        ASSERT_EQ(sb_search_ports(first, count, port),
                                  references[static_cast<std::size_t>(after - starts.begin()) - 1])
                                << count << " intervals, port " << port;
                }
        }
}

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

// The promise behind the speed: what a look-up reads does not grow with the number of bindings.
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

// Whoever writes prefixes into one place of the filter makes look-ups there as slow as without it, and no others.
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

std::string refusal(const std::vector<Rule>& rules, std::size_t room = kRoom) {
        const auto compiled = compile_rules(rules, room);
        return compiled ? "" : compiled.error().message;
}

TEST(Compile, what_cannot_be_is_refused) {
        EXPECT_NE(refusal({rule("1.0.0.0/24", {}, 0)}).find("service id"), std::string::npos);
        EXPECT_NE(refusal({rule("1.0.0.0/24", {0, 5}, 1)}).find("range of ports"), std::string::npos);
        EXPECT_NE(refusal({rule("1.0.0.0/24", {9, 5}, 1)}).find("range of ports"), std::string::npos);
        Rule host_bits = rule("1.0.0.0/24", {}, 1);
        host_bits.prefix.length = 4;
        EXPECT_NE(refusal({host_bits}).find("host bits"), std::string::npos);
        Rule far = rule("1.0.0.0/24", {}, 1);
        far.ifindex = 1 << 24;
        EXPECT_NE(refusal({far}).find("interface index"), std::string::npos);
        EXPECT_NE(refusal({rule("1.0.0.0/24", {}, 1), rule("1.0.0.0/24", {}, 2)}).find("neither goes before"),
                  std::string::npos);
        EXPECT_NE(refusal({rule("1.0.0.0/24", {1, 10}, 1), rule("1.0.0.0/24", {5, 14}, 1)}).find("neither goes"),
                  std::string::npos);
        EXPECT_EQ(refusal({rule("1.0.0.0/24", {}, 1), rule("1.0.0.0/24", {}, 1)}), "") << "twice the same is once";
        EXPECT_NE(refusal({rule("1.0.0.0/24", {}, 1), rule("1.0.1.0/24", {}, 1)}, 1).find("raise MaxBindings="),
                  std::string::npos);
}

TEST(Compile, more_rules_than_can_be_tried_for_one_packet_are_refused) {
        std::vector<Rule> rules;
        for (std::uint32_t i = 0; i < SB_MAX_STEPS; i++) {
                Rule each = rule("1.0.0.0/24", {}, 1 + i);
                each.ifindex = 1 + i;
                rules.push_back(each);
        }
        EXPECT_NE(refusal(rules).find("at most 1024"), std::string::npos);
        rules.pop_back();
        EXPECT_EQ(asked(rules, packet("1.0.0.1", 5, "", SB_MAX_STEPS - 1)), ServiceId{SB_MAX_STEPS - 1});
        rules.push_back(rule("0.0.0.0/0", {}, 5000));
        rules.push_back(rule("1.0.0.0/8", {1, 2}, 5001));
        EXPECT_NE(refusal(rules).find("prefixes that cover it"), std::string::npos);
}

}  // namespace
}  // namespace sockbroker
