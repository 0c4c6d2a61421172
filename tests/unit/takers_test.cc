// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which services would take a socket bound there: of one address the one that its packets would go to, of the
// unspecified address who has most of it.
#include "broker/policy/takers.h"

#include <gtest/gtest.h>

#include "broker/policy/decide.h"
#include "broker/policy/parse.h"

namespace sockbroker {
namespace {

constexpr const char* kPolicy = R"([Service any]
User=1
ListenStream=*
[Service dns]
User=1
ListenDatagram=1.0.0.0/24:53
ListenDatagram=[2606:4700::]/32:53
[Service dns-one]
User=1
ListenDatagram=1.0.0.1:53
[Service own]
User=1
ListenDatagram=127.1.0.0/16:53
[Service spectrum]
User=1
ListenStream=172.65.128.0/24:*
ListenStream=172.65.128.0/24:1024-65535
[Service web]
User=1
ListenStream=80
ListenStream=8000-8999
[Service web-one]
User=1
ListenStream=1.0.0.0/24:80
)";

std::string taken_by(const char* policy, const std::string& protocol, const std::string& at,
                     std::vector<std::string> services = {}, uid_t uid = 1) {
        const auto parsed = parse_policy({{"x.conf", policy}}, {});
        EXPECT_TRUE(parsed.policy);
        const WantedBind bind{
                .protocol = *parse_protocol(protocol), .at = *parse_endpoint(at), .services = std::move(services)};
        std::string shown;
        for (const auto& taker : takers(*parsed.policy, bind, {.pid = 9, .uid = uid, .gid = 5})) {
                shown += (shown.empty() ? "" : " ") + std::to_string(taker.rank) + taker.service->name + "=" +
                         taker.binding->ports.to_string();
        }
        return shown;
}

std::string taken(const std::string& protocol, const std::string& at, std::vector<std::string> services = {},
                  uid_t uid = 1) {
        return taken_by(kPolicy, protocol, at, std::move(services), uid);
}

TEST(Takers, OneAddressGoesToWhoeverItsPacketsGoTo) {
        EXPECT_EQ(taken("udp", "1.0.0.1:53"), "0dns-one=53 1dns=53");
        EXPECT_EQ(taken("udp", "1.0.0.2:53"), "0dns=53");
        EXPECT_EQ(taken("udp", "[2606:4700::1]:53"), "0dns=53");
        EXPECT_EQ(taken("udp", "9.9.9.9:53"), "");
        EXPECT_EQ(taken("tcp", "1.0.0.1:80"), "0web-one=80 1web=80 2any=*");
        EXPECT_EQ(taken("tcp", "172.65.128.7:443"), "0spectrum=* 1any=*");
        EXPECT_EQ(taken("tcp", "172.65.128.7:8080"), "0spectrum=1024-65535 1web=8000-8999 2any=*");
}

TEST(Takers, TheUnspecifiedAddressIsAllThatAServiceHas) {
        EXPECT_EQ(taken("tcp", "0.0.0.0:80"), "0web=80 1web-one=80 2any=* 3spectrum=*");
        EXPECT_EQ(taken("tcp", "[::]:80"), "0web=80 1any=*");
        EXPECT_EQ(taken("udp", "0.0.0.0:53"), "0dns=53 0dns-one=53 0own=53");
        EXPECT_EQ(taken("udp", "[::]:53"), "0dns=53");
        EXPECT_EQ(taken("udp", "0.0.0.0:54"), "");
}

TEST(Takers, NobodyHasLoopbackByAShortPrefixNorWhatNeverComesToTheDispatch) {
        for (const std::string at : {"127.0.0.1:80", "127.255.0.9:80", "[::1]:80", "224.0.0.251:80", "239.1.2.3:80",
                                     "255.255.255.255:80", "[ff02::fb]:80"}) {
                EXPECT_EQ(taken("tcp", at), "") << at;
        }
        EXPECT_EQ(taken("tcp", "128.0.0.1:80"), "0web=80 1any=*");
        EXPECT_EQ(taken("udp", "127.0.0.9:53"), "");
        EXPECT_EQ(taken("udp", "127.1.0.9:53"), "0own=53");
}

TEST(Takers, NamesRestrict) {
        EXPECT_EQ(taken("udp", "0.0.0.0:53", {"dns"}), "0dns=53");
        EXPECT_EQ(taken("tcp", "0.0.0.0:80", {"any", "web-one", "any"}), "0web-one=80 1any=*");
        EXPECT_EQ(taken("tcp", "0.0.0.0:80", {"dns", "not-there"}), "");
}

TEST(Takers, WhoCannotAdmitIsNotLookedAt) {
        EXPECT_EQ(taken("tcp", "0.0.0.0:80", {}, 2), "");
        EXPECT_EQ(taken("tcp", "0.0.0.0:80", {"web"}, 2), "");
        const auto parsed = parse_policy({{"x.conf",
                                           "[Service unit]\nUnit=a.service\n[Service name]\nUser=somebody\n"
                                           "[Service number]\nUser=7\nGroup=8\n[Service nobody]\n"}},
                                         {});
        ASSERT_TRUE(parsed.policy);
        const auto may = [&](const char* name, const Peer& peer) {
                return may_admit(*parsed.policy->find(name), peer);
        };
        EXPECT_TRUE(may("unit", {1, 5, 5, "a.service"}));
        EXPECT_FALSE(may("unit", {1, 5, 5, "b.service"}));
        EXPECT_TRUE(may("name", {1, 5, 5, ""}));  // the host knows
        EXPECT_FALSE(may("name", {1, 65534, 5, ""}));
        EXPECT_TRUE(may("number", {1, 7, 8, ""}));
        EXPECT_FALSE(may("number", {1, 7, 9, ""}));
        EXPECT_FALSE(may("nobody", {1, 0, 0, ""}));
}

// With Source= of one family alone, bindings of the other match nobody.
constexpr const char* kOfOneFamily = R"([Service four]
User=1
Source=10.0.0.0/8
ListenStream=443
ListenStream=444
[Service six]
User=1
ListenStream=[::]/0:443
)";

TEST(Takers, ABindingThatMatchesNobodyTakesNothing) {
        EXPECT_EQ(taken_by(kOfOneFamily, "tcp", "[::]:443"), "0six=443");
        EXPECT_EQ(taken_by(kOfOneFamily, "tcp", "[2001:db8::1]:443"), "0six=443");
        EXPECT_EQ(taken_by(kOfOneFamily, "tcp", "0.0.0.0:443"), "0four=443");
        EXPECT_EQ(taken_by(kOfOneFamily, "tcp", "[::]:444"), "");
        EXPECT_EQ(taken_by(kOfOneFamily, "tcp", "192.0.2.1:444"), "0four=444");
}

TEST(Takers, ARefusalTellsOfBindingsThatMatchSomebody) {
        const auto parsed = parse_policy({{"x.conf", kOfOneFamily}}, {});
        const WantedBind bind{.at = *parse_endpoint("[::]:444"), .services = {"four"}};
        EXPECT_EQ(what_is_admitted(*parsed.policy, bind, {.pid = 9, .uid = 1, .gid = 5}, {}),
                  "four, which admits the sender, has tcp 443 for clients of IPv4 alone, tcp 444 for clients of IPv4 "
                  "alone");
        EXPECT_EQ(find_binder(*parsed.policy, bind), nullptr);
}

TEST(Takers, NamesThatNoPolicyHasAreSaid) {
        const auto parsed = parse_policy({{"x.conf", kPolicy}}, {});
        WantedBind bind{.services = {"web", "wev"}};
        const auto refusal = unknown_names(*parsed.policy, bind);
        ASSERT_TRUE(refusal);
        EXPECT_EQ(refusal->code, ResultCode::kUnknownService);
        EXPECT_NE(refusal->message.find("wev"), std::string::npos);
        bind.services.pop_back();
        EXPECT_FALSE(unknown_names(*parsed.policy, bind));
}

}  // namespace
}  // namespace sockbroker
