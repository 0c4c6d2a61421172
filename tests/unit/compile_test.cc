// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The compiler of rules against the specification: what it writes is walked by the lines that the kernel runs, and
// compared with the oracle.
#include "broker/dataplane/compile/compile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "broker/dataplane/compile/port_table.h"
#include "tests/support/walk.h"

namespace sockbroker {
namespace {

using oracle::Generator;

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
