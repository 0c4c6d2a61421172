// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Source= and Interface=: which rules a binding becomes, what may stand side by side in all five dimensions, and that a
// few lines which mean too many bindings are refused before anything is made of them.
#include <sys/resource.h>

#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "broker/policy/conflicts.h"
#include "broker/policy/decide.h"
#include "broker/policy/parse.h"
#include "broker/registry/registry.h"

namespace sockbroker {
namespace {

using Strings = std::vector<std::string>;

ParsedPolicy parse(std::string text, const PolicyLimits& limits = {}) {
        return parse_policy({{"50-x.conf", std::move(text)}}, limits);
}

Strings messages(const ParsedPolicy& parsed) {
        Strings all;
        for (const auto& diagnostic : parsed.diagnostics) {
                all.push_back((diagnostic.severity == Severity::kWarning ? "warning " : "error ") +
                              diagnostic.to_string());
        }
        return all;
}

// Every binding with what it stands for, as a conflict would call it.
Strings meant(const Service& service) {
        Strings all;
        for (const auto& binding : service.bindings) {
                const auto family = binding.prefix.address.family;
                for (std::size_t n = 0; n < count_client_filters(service, family); n++) {
                        all.push_back(written(binding, client_filter_at(service, family, n)));
                }
        }
        return all;
}

TEST(PolicyMatches, ABindingStandsForEachSourceOfItsFamilyAndEachInterface) {
        const auto parsed = parse(R"([Service a]
User=1
Source=10.0.0.0/8 2001:db8::/32
ListenStream=192.0.2.0/24:80
ListenStream=[2001:db8:1::]/48:80
Interface=eth0
Source=198.51.100.1
Interface=br-lan eth0.7
)");
        ASSERT_TRUE(parsed.policy) << messages(parsed)[0];
        EXPECT_EQ(messages(parsed), Strings{});
        EXPECT_EQ(meant(parsed.policy->services[0]),
                  (Strings{"ListenStream=192.0.2.0/24:80 from 10.0.0.0/8 on eth0",
                           "ListenStream=192.0.2.0/24:80 from 10.0.0.0/8 on br-lan",
                           "ListenStream=192.0.2.0/24:80 from 10.0.0.0/8 on eth0.7",
                           "ListenStream=192.0.2.0/24:80 from 198.51.100.1/32 on eth0",
                           "ListenStream=192.0.2.0/24:80 from 198.51.100.1/32 on br-lan",
                           "ListenStream=192.0.2.0/24:80 from 198.51.100.1/32 on eth0.7",
                           "ListenStream=[2001:db8:1::]/48:80 from 2001:db8::/32 on eth0",
                           "ListenStream=[2001:db8:1::]/48:80 from 2001:db8::/32 on br-lan",
                           "ListenStream=[2001:db8:1::]/48:80 from 2001:db8::/32 on eth0.7"}));
}

TEST(PolicyMatches, AnEmptyValueClearsTheListOfBothFamilies) {
        const auto parsed =
                parse("[Service a]\nUser=1\nListenStream=80\nSource=10.0.0.0/8 2001:db8::/32\nInterface=eth0\n"
                      "WhenAbsent=next\nSource=\nInterface=\n");
        ASSERT_TRUE(parsed.policy);
        EXPECT_EQ(meant(parsed.policy->services[0]), (Strings{"ListenStream=80", "ListenStream=80"}));
        EXPECT_EQ(parsed.policy->services[0].when_absent, WhenAbsent::kNext);
}

TEST(PolicyMatches, AFamilyWithNoSourceOfItsOwnMatchesNobody) {
        const auto parsed =
                parse("[Service a]\nUser=1\nListenStream=192.0.2.0/24:80\nListenStream=443\nSource=10.0.0.0/8\n"
                      "[Service b]\nUser=1\nListenStream=192.0.2.0/24:81\nSource=2001:db8::/32\n");
        ASSERT_TRUE(parsed.policy);
        EXPECT_EQ(
                messages(parsed),
                (Strings{"warning 50-x.conf:4: service a has Source= for IPv4 only, so its IPv6 bindings match nobody",
                         "warning 50-x.conf:8: service b has Source= for IPv6 only, so its IPv4 bindings match "
                         "nobody"}));
        EXPECT_EQ(meant(parsed.policy->services[0]),
                  (Strings{"ListenStream=192.0.2.0/24:80 from 10.0.0.0/8", "ListenStream=443 from 10.0.0.0/8"}));
        EXPECT_EQ(meant(parsed.policy->services[1]), Strings{});
        using Used = std::array<std::array<bool, 2>, 2>;
        EXPECT_EQ(parsed.policy->services[0].used, (Used{{{true, false}, {false, false}}}));
        EXPECT_EQ(parsed.policy->services[1].used, Used{});
}

TEST(PolicyMatches, AValueTwiceIsAWarningAndCountsOnce) {
        const auto parsed = parse(
                "[Service a]\nUser=1\nListenStream=192.0.2.0/24:80\nSource=10.0.0.0/8\nSource=10.1.0.0/16 10.0.0.0/8\n"
                "Interface=eth0 eth1 eth0\n");
        ASSERT_TRUE(parsed.policy);
        EXPECT_EQ(messages(parsed),
                  (Strings{"warning 50-x.conf:5: Source=10.0.0.0/8 stands twice in service a, first at 50-x.conf:4",
                           "warning 50-x.conf:6: Interface=eth0 stands twice in service a, first at 50-x.conf:6"}));
        EXPECT_EQ(meant(parsed.policy->services[0]).size(), 4U);
}

TEST(PolicyMatches, DifferentSourcesOrInterfacesStandSideBySideAcrossServices) {
        const auto parsed = parse(R"([Service all]
User=1
ListenStream=192.0.2.0/24:80-90
[Service wide]
User=1
Source=10.0.0.0/8
ListenStream=192.0.2.0/24:85-95
[Service narrow]
User=1
Source=10.0.0.0/16
ListenStream=192.0.2.0/24:84-94
[Service there]
User=1
Interface=eth0
ListenStream=192.0.2.0/24:83-93
[Service both]
User=1
Interface=eth0
Source=10.0.0.0/16
ListenStream=192.0.2.0/24:82-92
)");
        EXPECT_TRUE(parsed.policy);
        EXPECT_EQ(messages(parsed), Strings{});
}

// As in policy_parse_test, now with sources and interfaces: a plain comparison of all pairs of what is meant.
TEST(PolicyMatches, ConflictsAgreeWithComparingAllPairs) {
        std::uint32_t random = 7;
        const auto draw = [&](std::uint32_t below) {
                random = random * 1664525 + 1013904223;
                return (random >> 16) % below;
        };
        const std::array<Prefix, 4> sources{*parse_prefix("0.0.0.0/0"), *parse_prefix("10.0.0.0/8"),
                                            *parse_prefix("10.0.0.0/16"), *parse_prefix("11.0.0.0/8")};
        const std::array<std::string, 3> interfaces{"eth0", "eth1", "eth2"};
        unsigned bad_policies = 0;
        constexpr unsigned kRounds = 4000;
        for (unsigned round = 0; round < kRounds; round++) {
                Policy policy;
                policy.files = {"x"};
                policy.services.resize(3);
                unsigned line = 0;
                struct Meant {
                        unsigned service;
                        std::string source;
                        std::string interface;
                        PortRange ports;
                };
                std::vector<Meant> all;
                for (unsigned s = 0; s < 3; s++) {
                        auto& service = policy.services[s];
                        for (const auto& source : sources) {
                                if (draw(4) == 0) {
                                        service.sources[0].push_back({source, Where{0, ++line}});
                                }
                        }
                        for (const auto& interface : interfaces) {
                                if (draw(4) == 0) {
                                        service.interfaces.push_back({interface, Where{0, ++line}});
                                }
                        }
                        for (unsigned i = 0; i < 1 + draw(2); i++) {
                                const auto first = static_cast<std::uint16_t>(1 + draw(8));
                                const PortRange ports{first, static_cast<std::uint16_t>(first + draw(5))};
                                service.bindings.push_back({Prefix{}, ports, Protocol::kTcp, false, Where{0, ++line}});
                                auto names = service.interfaces;
                                names.resize(std::max<std::size_t>(1, names.size()));
                                auto from = service.sources[0];
                                from.resize(std::max<std::size_t>(1, from.size()));
                                for (const auto& source : from) {
                                        for (const auto& name : names) {
                                                all.push_back({s, source.prefix.to_string(), name.value, ports});
                                        }
                                }
                        }
                }
                bool bad = false;
                for (const auto& a : all) {
                        for (const auto& b : all) {
                                if (a.source == b.source && a.interface == b.interface) {
                                        bad = bad || (a.ports == b.ports && a.service != b.service) ||
                                              (a.ports.first < b.ports.first && b.ports.first <= a.ports.last &&
                                               a.ports.last < b.ports.last);
                                }
                        }
                }
                Findings findings;
                find_conflicts(policy, findings);
                EXPECT_EQ(findings.errors() > 0, bad) << "round " << round;
                bad_policies += bad ? 1 : 0;
        }
        EXPECT_GT(bad_policies, kRounds / 10);
        EXPECT_LT(bad_policies, kRounds * 9 / 10);
}

TEST(PolicyMatches, TenBindingsOfTenTimesTenAreAThousand) {
        std::string text = "[Service a]\nUser=1\n";
        for (unsigned i = 0; i < 10; i++) {
                const auto number = std::to_string(i);
                text += "Source=10." + number + ".0.0/16\nInterface=eth" + number + "\nListenStream=192.0.2." + number +
                        ":80\n";
        }
        EXPECT_TRUE(parse(text, {.max_bindings = 1000}).policy);
        const auto refused = parse(text, {.max_bindings = 999});
        ASSERT_EQ(refused.diagnostics.size(), 1U);
        EXPECT_EQ(refused.diagnostics[0].line, 32U) << "the line with which the limit is passed";
}

// 2 MB of text that mean 10^13 bindings.
TEST(PolicyMatches, WhatIsMultipliedBeyondTheLimitIsNeverWrittenOut) {
        std::string text = "[Service a]\nUser=1\n";
        for (unsigned i = 0; i < 20000; i++) {
                const auto octets = std::to_string(i / 256) + "." + std::to_string(i % 256);
                text += "Source=10." + octets + ".0/24\nInterface=i" + std::to_string(i) + "\nListenStream=192.0." +
                        octets + ":80\n";
        }
        rusage before{};
        getrusage(RUSAGE_SELF, &before);
        const auto parsed = parse(text, {.max_bindings = 1U << 24});
        rusage after{};
        getrusage(RUSAGE_SELF, &after);
        EXPECT_FALSE(parsed.policy);
        ASSERT_EQ(parsed.diagnostics.size(), 1U);
        EXPECT_TRUE(parsed.diagnostics[0].message.starts_with("8000000000000 bindings"))
                << parsed.diagnostics[0].message;
        EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64 * 1024) << "KiB";
}

TEST(Rules, StandForEachSourceAndEachInterfaceThatThereIs) {
        const auto parsed =
                parse("[Service a]\nUser=1\nListenStream=80\nSource=10.0.0.0/8 11.0.0.0/8 2001:db8::/32\n"
                      "Interface=eth0 gone eth7\nWhenAbsent=next\n");
        ASSERT_TRUE(parsed.policy);
        const auto rules = rules_of(*parsed.policy, [](const std::string&) { return 1U; },
                                    {{"eth0", 2}, {"gone", 0}, {"eth7", 9}}, {});
        std::vector<std::tuple<std::string, std::string, std::uint32_t>> found;
        for (const auto& rule : rules) {
                ASSERT_TRUE(rule.source);
                EXPECT_EQ(rule.absent, Absent::kNext);
                found.emplace_back(rule.prefix.to_string(), rule.source->to_string(), rule.ifindex);
        }
        EXPECT_EQ(found, (decltype(found){{"0.0.0.0/0", "10.0.0.0/8", 2},
                                          {"0.0.0.0/0", "10.0.0.0/8", 9},
                                          {"0.0.0.0/0", "11.0.0.0/8", 2},
                                          {"0.0.0.0/0", "11.0.0.0/8", 9},
                                          {"::/0", "2001:db8::/32", 2},
                                          {"::/0", "2001:db8::/32", 9}}));
}

TEST(Rules, OfAServiceWithNoneOfItsInterfacesAreNone) {
        const auto parsed = parse("[Service a]\nUser=1\nListenStream=80\nInterface=gone\n");
        ASSERT_TRUE(parsed.policy) << "validity depends on the text alone";
        EXPECT_TRUE(rules_of(*parsed.policy, [](const std::string&) { return 1U; }, {}, {}).empty())
                << "a rule without its interface would be one for every interface";
}

TEST(Interfaces, ThatAreNotThereOrCannotBeHeldAreWarnings) {
        const auto parsed =
                parse("[Service a]\nUser=1\nListenStream=80\nInterface=eth0 gone\nInterface=big\n"
                      "[Service b]\nUser=1\nListenStream=81\nInterface=gone\n");
        ASSERT_TRUE(parsed.policy);
        std::map<std::string, unsigned> asked;
        const auto index_of = [&](const std::string& name) -> std::uint32_t {
                asked[name]++;
                return name == "eth0" ? 2 : name == "big" ? 1U << 24 : 0;
        };
        Strings warnings;
        for (const auto& warning : unknown_interfaces(*parsed.policy, index_of)) {
                EXPECT_EQ(warning.severity, Severity::kWarning);
                warnings.push_back(warning.to_string());
        }
        EXPECT_EQ(warnings,
                  (Strings{"50-x.conf:4: Interface=: gone does not exist on this host (yet), so it matches nobody",
                           "50-x.conf:5: Interface=: big has the index 16777216 and rules hold 16777215 at most, make "
                           "it anew with a smaller one (ip link add ... index N), so it matches nobody",
                           "50-x.conf:9: Interface=: gone does not exist on this host (yet), so it matches nobody"}));
        EXPECT_EQ(asked["gone"], 1U) << "each name is asked for once";
        EXPECT_EQ(find_interfaces(*parsed.policy, index_of), (Interfaces{{"big", 0}, {"eth0", 2}, {"gone", 0}}));
}

// One was renamed to the other between two lookups: a rule of each would contradict the other's.
TEST(Interfaces, TwoNamesOfOneIndexCountForNeither) {
        const auto parsed = parse("[Service a]\nUser=1\nListenStream=80\nInterface=new old other\n");
        ASSERT_TRUE(parsed.policy);
        EXPECT_EQ(find_interfaces(*parsed.policy, [](const std::string& name) { return name == "other" ? 4U : 3U; }),
                  (Interfaces{{"new", 0}, {"old", 0}, {"other", 4}}));
}

}  // namespace
}  // namespace sockbroker
