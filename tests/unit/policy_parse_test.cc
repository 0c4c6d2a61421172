// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a policy without mistakes means: sections that add up, lists, scalars, empty values, port forms, and which
// bindings may stand side by side.
#include <gtest/gtest.h>

#include "broker/policy/conflicts.h"
#include "broker/policy/ini.h"
#include "broker/policy/parse.h"
#include "broker/policy/values.h"

namespace sockbroker {
namespace {

ParsedPolicy parse(std::string text) {
        return parse_policy({{"50-x.conf", std::move(text)}}, {});
}

std::vector<std::string> messages(const ParsedPolicy& parsed) {
        std::vector<std::string> all;
        for (const auto& diagnostic : parsed.diagnostics) {
                all.push_back((diagnostic.severity == Severity::kWarning ? "warning " : "error ") +
                              diagnostic.to_string());
        }
        return all;
}

std::vector<std::string> bindings_of(const Service& service) {
        std::vector<std::string> all;
        for (const auto& binding : service.bindings) {
                all.push_back(written(binding));
        }
        return all;
}

std::vector<std::string> values_of(const std::vector<Matcher>& matchers) {
        std::vector<std::string> all;
        for (const auto& matcher : matchers) {
                all.push_back(matcher.value);
        }
        return all;
}

using Strings = std::vector<std::string>;

// A million of them are kept for as long as the broker runs.
static_assert(sizeof(Binding) == 32);

TEST(PolicyParse, TheExampleOfTheManual) {
        const auto parsed = parse(R"(# who serves what
[Service resolver]
Unit=resolver.service resolver.socket
ListenDatagram=1.0.0.0/24:53
ListenStream=1.0.0.0/24:53
ListenDatagram=[2606:4700::]/32:53

[Service spectrum]
User=spectrum
ListenStream=172.65.128.0/24:*
ListenStream=172.65.129.0/24:1024-65535
WhenAbsent=pass
Handover=refuse
MaxSockets=64
)");
        ASSERT_TRUE(parsed.policy) << messages(parsed)[0];
        EXPECT_TRUE(parsed.diagnostics.empty());
        const auto& policy = *parsed.policy;
        ASSERT_EQ(policy.services.size(), 2U);

        const auto* resolver = policy.find("resolver");
        ASSERT_NE(resolver, nullptr);
        EXPECT_EQ(values_of(resolver->units), (Strings{"resolver.service", "resolver.socket"}));
        EXPECT_EQ(bindings_of(*resolver), (Strings{"ListenDatagram=1.0.0.0/24:53", "ListenStream=1.0.0.0/24:53",
                                                   "ListenDatagram=[2606:4700::]/32:53"}));
        EXPECT_EQ(policy.location(resolver->where), "50-x.conf:2");
        EXPECT_EQ(policy.location(resolver->units[1].where), "50-x.conf:3");
        EXPECT_EQ(policy.location(resolver->bindings[2].where), "50-x.conf:6");
        EXPECT_EQ(resolver->when_absent, WhenAbsent::kRefuse);
        EXPECT_EQ(resolver->handover, Handover::kReplace);
        EXPECT_EQ(resolver->max_sockets, 256U);

        const auto* spectrum = policy.find("spectrum");
        ASSERT_NE(spectrum, nullptr);
        EXPECT_EQ(spectrum->when_absent, WhenAbsent::kPass);
        EXPECT_EQ(spectrum->handover, Handover::kRefuse);
        EXPECT_EQ(spectrum->max_sockets, 64U);
        EXPECT_EQ(spectrum->bindings[0].ports, (PortRange{1, 65535}));
        EXPECT_EQ(spectrum->bindings[1].ports, (PortRange{1024, 65535}));
        EXPECT_EQ(policy.find("auth"), nullptr);
}

TEST(PolicyParse, NothingIsAPolicyThatAdmitsNobody) {
        const auto none = parse_policy({}, {});
        ASSERT_TRUE(none.policy);
        EXPECT_TRUE(none.policy->services.empty());
        EXPECT_TRUE(parse("\n \t\n# a\n; b\n").policy);
}

TEST(PolicyParse, SectionsOfOneServiceAddUpAcrossFiles) {
        const auto parsed =
                parse_policy({{"10-a.conf", "[Service b]\nUser=1\n[Service a]\nUser=61001\nListenStream=80\n"},
                              {"20-b.conf", "[Service a]\nUser=61002 web\n[Service b]\nListenStream=81\n"},
                              {"30-c.conf", "[Service a]\nGroup=61003\nListenDatagram=80"}},
                             {});
        ASSERT_TRUE(parsed.policy);
        ASSERT_EQ(parsed.policy->services.size(), 2U);
        const auto& a = parsed.policy->services[0];  // sorted by name
        EXPECT_EQ(a.name, "a");
        EXPECT_EQ(values_of(a.users), (Strings{"61001", "61002", "web"}));
        EXPECT_EQ(values_of(a.groups), (Strings{"61003"}));
        EXPECT_EQ(bindings_of(a),
                  (Strings{"ListenStream=80", "ListenStream=80", "ListenDatagram=80", "ListenDatagram=80"}));
        EXPECT_EQ(parsed.policy->location(a.where), "10-a.conf:3");
        EXPECT_EQ(parsed.policy->location(a.groups[0].where), "30-c.conf:2");
}

TEST(PolicyParse, OfScalarsTheLastWinsAndAnEmptyOneIsTheDefault) {
        const auto parsed =
                parse_policy({{"10-a.conf",
                               "[Service a]\nUser=1\nListenStream=80\nWhenAbsent=pass\nHandover=refuse\n"
                               "MaxSockets=1\nMaxSockets=2\n"},
                              {"20-b.conf", "[Service a]\nWhenAbsent=refuse\nWhenAbsent=pass\nHandover=\n"}},
                             {});
        ASSERT_TRUE(parsed.policy);
        const auto& a = parsed.policy->services[0];
        EXPECT_EQ(a.when_absent, WhenAbsent::kPass);
        EXPECT_EQ(a.handover, Handover::kReplace);
        EXPECT_EQ(a.max_sockets, 2U);
        EXPECT_EQ(parse("[Service a]\nUser=1\nMaxSockets=9\nMaxSockets=\n").policy->services[0].max_sockets, 256U);
        EXPECT_EQ(parse("[Service a]\nUser=1\nWhenAbsent=pass\nWhenAbsent=\n").policy->services[0].when_absent,
                  WhenAbsent::kRefuse);
}

TEST(PolicyParse, AnEmptyValueClearsItsOwnListOnly) {
        const auto parsed = parse_policy(
                {{"10-a.conf", "[Service a]\nUnit=a.service\nUser=1 2\nGroup=3\nListenStream=80\nListenDatagram=53\n"},
                 {"20-b.conf", "[Service a]\nListenStream=\nListenStream=192.0.2.1:81\nUser=\nUser=4\nUnit=\n"}},
                {});
        ASSERT_TRUE(parsed.policy);
        const auto& a = parsed.policy->services[0];
        EXPECT_TRUE(a.units.empty());
        EXPECT_EQ(values_of(a.users), (Strings{"4"}));
        EXPECT_EQ(values_of(a.groups), (Strings{"3"}));
        EXPECT_EQ(bindings_of(a), (Strings{"ListenDatagram=53", "ListenDatagram=53", "ListenStream=192.0.2.1/32:81"}));
}

TEST(PolicyParse, WhatWasClearedNoLongerConflicts) {
        const auto parsed = parse_policy({{"10-a.conf", "[Service a]\nUser=1\nListenStream=80\n"},
                                          {"20-b.conf", "[Service a]\nListenStream=\nListenStream=81\n"},
                                          {"30-c.conf", "[Service b]\nUser=2\nListenStream=80\n"}},
                                         {.max_bindings = 4});
        EXPECT_TRUE(parsed.policy) << messages(parsed)[0];
}

TEST(PolicyParse, PortsAloneMeanBothFamiliesAndAnyAddress) {
        const auto parsed = parse("[Service a]\nUser=1\nListenDatagram=1000-2000\n");
        ASSERT_TRUE(parsed.policy);
        const auto& bindings = parsed.policy->services[0].bindings;
        ASSERT_EQ(bindings.size(), 2U);
        EXPECT_EQ(bindings[0].prefix.to_string(), "0.0.0.0/0");
        EXPECT_EQ(bindings[1].prefix.to_string(), "::/0");
        for (const auto& binding : bindings) {
                EXPECT_TRUE(binding.bare);
                EXPECT_EQ(binding.ports, (PortRange{1000, 2000}));
                EXPECT_EQ(binding.protocol, Protocol::kUdp);
        }
}

TEST(PolicyParse, FormsOfABinding) {
        const std::pair<const char*, const char*> forms[] = {
                {"192.0.2.1:80", "192.0.2.1/32"},
                {"192.0.2.1/32:80", "192.0.2.1/32"},
                {"0.0.0.0/0:*", "0.0.0.0/0"},
                {"10.0.0.0/7:1-65535", "10.0.0.0/7"},
                {"[2001:db8::1]:80", "2001:db8::1/128"},
                {"[::]/0:80-81", "::/0"},
                {"[2001:DB8::]/32:80", "2001:db8::/32"},
        };
        for (const auto& [value, prefix] : forms) {
                const auto listen = parse_listen(value);
                ASSERT_TRUE(listen) << listen.error().text();
                EXPECT_EQ(listen->prefix->to_string(), prefix);
        }
}

TEST(PolicyParse, ServicesThatDoNothingAreWarnings) {
        const auto parsed = parse("[Service a]\n[Service b]\nUnit=b.service\n[Service c]\nListenStream=80\n");
        EXPECT_TRUE(parsed.policy);
        EXPECT_EQ(
                messages(parsed),
                (Strings{"warning 50-x.conf:1: service a has no Unit=, User= or Group= and admits nobody",
                         "warning 50-x.conf:2: service b has no ListenStream= or ListenDatagram= and receives nothing",
                         "warning 50-x.conf:4: service c has no Unit=, User= or Group= and admits nobody"}));
}

TEST(PolicyParse, RoutesOfPortsAloneAndOfTwoServicesAreWarnedOf) {
        const std::string text =
                "[Service a]\nUser=a\nAnnounce=any\nListenStream=192.0.2.0/24:80\nListenStream=443\n"
                "[Service b]\nUser=b\nAnnounce=all\nLocalRoutes=yes\nListenDatagram=192.0.2.0/24:53\n"
                "ListenStream=192.0.2.0/25:53\n[Service c]\nUser=c\nListenDatagram=192.0.2.0/24:54\n";
        EXPECT_EQ(messages(parse(text)),
                  (Strings{"warning 50-x.conf:5: service a has Announce=any, but ports alone have no prefix and so no "
                           "route",
                           "warning 50-x.conf:10: 192.0.2.0/24 is announced for a and for b: it is withdrawn while "
                           "either is down or drained"}));
}

TEST(PolicyParse, ABindingTwiceInOneServiceIsAWarning) {
        const auto parsed =
                parse("[Service a]\nUser=1\nListenStream=192.0.2.1:80\nListenStream=192.0.2.1/32:80\n"
                      "ListenDatagram=53\nListenDatagram=53\nListenDatagram=0.0.0.0/0:53\n");
        EXPECT_TRUE(parsed.policy);
        EXPECT_EQ(messages(parsed),
                  (Strings{"warning 50-x.conf:4: ListenStream=192.0.2.1/32:80 stands twice in service a, first at "
                           "50-x.conf:3",
                           "warning 50-x.conf:6: ListenDatagram=53 stands twice in service a, first at 50-x.conf:5",
                           "warning 50-x.conf:7: ListenDatagram=0.0.0.0/0:53 stands twice in service a, first at "
                           "50-x.conf:6"}));
}

TEST(PolicyParse, NestedAndDisjointRangesStandSideBySideAcrossServices) {
        const auto parsed = parse(R"([Service a]
User=1
ListenStream=192.0.2.0/24:*
ListenStream=192.0.2.0/24:1000-1999
ListenStream=192.0.2.0/24:1000
ListenStream=192.0.2.0/25:1500-2500
[Service b]
User=2
ListenStream=192.0.2.0/24:1999
ListenStream=192.0.2.0/24:2000-2999
ListenStream=192.0.2.0/24:1000-1500
ListenStream=192.0.2.0/24:1501-1998
ListenDatagram=192.0.2.0/24:1500-2500
ListenStream=[::]/0:1500-2500
ListenStream=0.0.0.0/0:1600-2600
)");
        EXPECT_TRUE(parsed.policy);
        EXPECT_EQ(messages(parsed), Strings{});
}

// The search keeps only the innermost range in view; a plain comparison of all pairs must find the same policies bad.
TEST(PolicyParse, ConflictsAgreeWithComparingAllPairs) {
        std::uint32_t random = 1;
        const auto draw = [&](std::uint32_t below) {
                random = random * 1664525 + 1013904223;
                return (random >> 16) % below;
        };
        unsigned bad_policies = 0;
        for (unsigned round = 0; round < 2000; round++) {
                std::vector<std::pair<unsigned, PortRange>> ranges;
                Policy policy;
                policy.files = {"x"};
                policy.services.resize(2);
                for (unsigned i = 0; i < 2 + draw(5); i++) {
                        const auto first = static_cast<std::uint16_t>(1 + draw(12));
                        const auto last = static_cast<std::uint16_t>(first + draw(6));
                        const auto service = draw(2);
                        ranges.emplace_back(service, PortRange{first, last});
                        policy.services[service].bindings.push_back(
                                {Prefix{}, PortRange{first, last}, Protocol::kTcp, false, Where{0, i + 1}});
                }
                bool bad = false;
                for (const auto& [s, a] : ranges) {
                        for (const auto& [t, b] : ranges) {
                                bad = bad || (a == b && s != t);
                                bad = bad || (a.first < b.first && b.first <= a.last && a.last < b.last);
                        }
                }
                Findings findings;
                find_conflicts(policy, findings);
                EXPECT_EQ(findings.errors() > 0, bad) << "round " << round;
                bad_policies += bad ? 1 : 0;
        }
        EXPECT_GT(bad_policies, 200U);
        EXPECT_LT(bad_policies, 1950U);
}

TEST(PolicyParse, LimitsAreReachedButNotPassed) {
        const std::string text =
                "[Service a]\nUser=1\nListenStream=80\nListenStream=192.0.2.1:80\n[Service "
                "b]\nUser=2\nListenStream=192.0.2.2:80\n";
        EXPECT_TRUE(parse_policy({{"x.conf", text}}, {.max_bindings = 4, .max_services = 2}).policy);
        EXPECT_FALSE(parse_policy({{"x.conf", text}}, {.max_bindings = 3, .max_services = 2}).policy);
        EXPECT_FALSE(parse_policy({{"x.conf", text}}, {.max_bindings = 4, .max_services = 1}).policy);
}

TEST(PolicyParse, ALineOf199BytesIsTakenWhole) {
        std::string line = "Unit=";
        line += std::string(kMaxIniLine - line.size() - 8, 'u') + ".service";
        const auto parsed = parse("[Service " + std::string(40, 'n') + "]\n" + line + "\nListenStream=80\n");
        ASSERT_TRUE(parsed.policy) << messages(parsed)[0];
        EXPECT_EQ(parsed.policy->services[0].name, std::string(40, 'n'));
        EXPECT_EQ("Unit=" + parsed.policy->services[0].units[0].value, line);
}

TEST(UnitPattern, NamesGlobsAndTemplates) {
        const std::tuple<const char*, const char*, bool> cases[] = {
                {"web.service", "web.service", true},
                {"web.service", "web.socket", false},
                {"web.service", "web2.service", false},
                {"web-*.service", "web-1.service", true},
                {"web-*.service", "web-.service", true},
                {"web-*.service", "web.service", false},
                {"web-[0-9].service", "web-7.service", true},
                {"web-[!0-9].service", "web-7.service", false},
                {"web?.service", "webs.service", true},
                {"*.scope", "session-3.scope", true},
                {"*.scope", "", false},
                {"dns@.service", "dns@eu.service", true},
                {"dns@.service", "dns@.service", true},
                {"dns@.service", "dns@eu.socket", false},
                {"dns@.service", "dns.service", false},
                {"dns@.service", "xdns@eu.service", false},
                {"dns*@.service", "dns-a@eu.service", true},
                {"dns@e*.service", "dns@eu.service", true},
                {"dns@eu.service", "dns@us.service", false},
                {R"(home-a\x2db.service)", R"(home-a\x2db.service)", true},
                {R"(home-?\x2db.service)", R"(home-a\x2db.service)", true},
                {"a.service.service", "a.service.service", true},
        };
        for (const auto& [pattern, unit, matches] : cases) {
                EXPECT_TRUE(check_unit_pattern(pattern)) << pattern;
                EXPECT_EQ(unit_matches(pattern, unit), matches) << pattern << " and " << unit;
        }
}

TEST(Accounts, NamesAndNumbers) {
        for (const char* good :
             {"0", "root", "61001", "4294967294", "_dns", "web.data-1", "web@example.org", "HOST$"}) {
                EXPECT_TRUE(check_account("user", good)) << good;
        }
        for (const char* bad :
             {"-1", "+1", "0x10", "00", "a:b", "a,b", "$a", "4294967295", "65534", "99999999999999999999"}) {
                EXPECT_FALSE(check_account("user", bad)) << bad;
        }
}

}  // namespace
}  // namespace sockbroker
