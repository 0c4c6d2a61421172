// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a policy does to a host where that is probably not meant, each kind with its line, and what is no reason for a
// warning beside it.
#include "broker/policy/host_warnings.h"

#include <gtest/gtest.h>

#include "broker/policy/parse.h"

namespace sockbroker {
namespace {

HostFacts host() {
        return {.listeners = std::vector<HostListener>(),
                .addresses = {*parse_address("198.51.100.1"), *parse_address("2001:db8:1::1")},
                .local = std::vector<Prefix>{*parse_prefix("192.0.2.0/24"), *parse_prefix("198.51.100.1/32"),
                                             *parse_prefix("127.0.0.0/8"), *parse_prefix("2001:db8::/64"),
                                             *parse_prefix("2001:db8:1::1/128")}};
}

HostListener listener(const std::string& at, Protocol protocol = Protocol::kTcp) {
        return {.protocol = protocol, .bound = *parse_endpoint(at), .uid = 33, .user = "www-data", .units = {}};
}

// The lines, with some of the words, of what is said of this policy.
std::vector<std::string> said(const std::string& text, const HostFacts& facts) {
        const auto parsed = parse_policy({{"x.conf", text}}, {});
        EXPECT_TRUE(parsed.policy);
        std::vector<std::string> all;
        for (const auto& warning : host_warnings(*parsed.policy, facts)) {
                EXPECT_EQ(warning.severity, Severity::kWarning);
                all.push_back(warning.to_string());
        }
        return all;
}

std::string section(const std::string& lines) {
        return "[Service web]\nUser=1\n" + lines + "\n";
}

std::vector<std::string> taken_over(const std::string& lines, const HostListener& one) {
        HostFacts facts = host();
        facts.listeners = {one};
        facts.local.reset();
        return said(section(lines), facts);
}

TEST(HostWarnings, AListenerAtAnAddressThatABindingCovers) {
        const auto all = taken_over("ListenStream=198.51.100.0/24:443", listener("198.51.100.1:443"));
        ASSERT_EQ(all.size(), 1U);
        EXPECT_EQ(
                all[0],
                "x.conf:3: ListenStream=198.51.100.0/24:443: a process of www-data listens on tcp 198.51.100.1:443 of "
                "this host: its new connections go to service web");
        auto named = listener("[2001:db8:1::1]:443");
        named.units = {"nginx.service"};
        EXPECT_NE(taken_over("ListenStream=443", named).at(0).find("nginx.service listens on tcp [2001:db8:1::1]:443"),
                  std::string::npos);
        EXPECT_NE(taken_over("Source=10.0.0.0/8\nListenStream=198.51.100.1:*", listener("198.51.100.1:22"))
                          .at(0)
                          .find("from some clients"),
                  std::string::npos);
}

TEST(HostWarnings, AnotherPortProtocolFamilyOrAddressTakesNothing) {
        EXPECT_TRUE(taken_over("ListenStream=198.51.100.0/24:443", listener("198.51.100.1:80")).empty());
        EXPECT_TRUE(taken_over("ListenDatagram=198.51.100.0/24:443", listener("198.51.100.1:443")).empty());
        EXPECT_TRUE(taken_over("ListenStream=[2001:db8:1::]/64:443", listener("0.0.0.0:443")).empty());
        EXPECT_TRUE(taken_over("ListenStream=192.0.2.0/24:443", listener("198.51.100.1:443")).empty());
}

TEST(HostWarnings, LoopbackIsNotMeantByShortPrefixes) {
        EXPECT_TRUE(taken_over("ListenStream=443", listener("127.0.0.1:443")).empty());
        EXPECT_TRUE(taken_over("ListenStream=443", listener("[::1]:443")).empty());
        EXPECT_EQ(taken_over("ListenStream=127.0.0.0/8:443", listener("127.0.0.1:443")).size(), 1U);
}

TEST(HostWarnings, ABindingThatMatchesNobodyTakesNothing) {
        auto dual = listener("[::]:443");
        EXPECT_TRUE(taken_over("Source=10.0.0.0/8\nListenStream=443", dual).empty());
        EXPECT_EQ(taken_over("Source=2001:db8::/32\nListenStream=443", dual).size(), 1U);
        dual.dual = true;
        EXPECT_EQ(taken_over("Source=10.0.0.0/8\nListenStream=443", dual).size(), 1U);
        HostFacts facts = host();
        facts.local->clear();
        EXPECT_TRUE(said(section("Source=10.0.0.0/8\nListenDatagram=[2001:db8:1::]/64:40000-40100"), facts).empty());
}

TEST(HostWarnings, AListenerForAnyAddressWhereTheHostIsAddressedOrItsPortIsMeant) {
        EXPECT_EQ(taken_over("ListenStream=192.0.2.0/24:443", listener("0.0.0.0:443")).size(), 1U);
        EXPECT_TRUE(taken_over("ListenStream=192.0.2.0/24:*", listener("0.0.0.0:22")).empty());
        EXPECT_EQ(taken_over("ListenStream=198.51.100.0/24:*", listener("0.0.0.0:22")).size(), 1U);
        auto dual = listener("[::]:443");
        EXPECT_TRUE(taken_over("ListenStream=192.0.2.0/24:443", dual).empty());
        dual.dual = true;
        EXPECT_EQ(taken_over("ListenStream=192.0.2.0/24:443", dual).size(), 1U);
}

TEST(HostWarnings, TheBindingThatDecidesIsTheOneThatIsNamed) {
        const auto all = taken_over(
                "ListenStream=*\nListenStream=198.51.100.0/24:*\nListenStream=198.51.100.0/24:443\n"
                "ListenStream=198.51.0.0/16:443",
                listener("198.51.100.1:443"));
        ASSERT_EQ(all.size(), 1U);
        EXPECT_TRUE(all[0].starts_with("x.conf:5: "));
}

TEST(HostWarnings, TheServicesOwnSocketIsNoStranger) {
        auto own = listener("198.51.100.1:443");
        own.uid = 1;
        EXPECT_TRUE(taken_over("ListenStream=198.51.100.0/24:443", own).empty());
        HostFacts facts = host();
        own.units = {"web.service"};
        own.uid = 7;
        facts.listeners = {own};
        EXPECT_TRUE(said("[Service web]\nUnit=web.service\nListenStream=198.51.100.0/24:443\n", facts).empty());
        EXPECT_EQ(said("[Service web]\nUnit=other.service\nListenStream=198.51.100.0/24:443\n", facts).size(), 1U);
}

TEST(HostWarnings, UdpOfThePortsThatTheHostsClientsAskFrom) {
        const auto of_udp = [](const std::string& line) { return said(section(line), host()); };
        const auto all = of_udp("ListenDatagram=198.51.100.0/24:*");
        ASSERT_EQ(all.size(), 1U);
        EXPECT_TRUE(
                all[0].starts_with("x.conf:3: ListenDatagram=: 198.51.100.1 is an address of this host, and its own "
                                   "clients ask from ports 32768-60999"))
                << all[0];
        EXPECT_EQ(of_udp("ListenDatagram=40000-40100").size(), 1U);
        EXPECT_TRUE(of_udp("ListenDatagram=51820").empty()) << "one port is hardly ever that of a client";
        EXPECT_TRUE(of_udp("ListenDatagram=1-1000").empty());
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:*").empty());
        EXPECT_TRUE(of_udp("ListenStream=198.51.100.0/24:*").empty());
}

TEST(HostWarnings, UdpOfPortsThatTheKernelGivesToAnybody) {
        HostFacts facts = host();
        const auto of_udp = [&](const std::string& line) { return said(section(line), facts); };
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:51820").empty()) << "not known what is reserved";
        facts.reserved.emplace();
        EXPECT_EQ(of_udp("ListenDatagram=192.0.2.0/24:51820"),
                  std::vector<std::string>{"x.conf:3: ListenDatagram=: the kernel gives the port of service web to "
                                           "sockets of any user that ask for no port (net.ipv4.ip_local_port_range), "
                                           "which can take a client's flow: add 51820 to "
                                           "net.ipv4.ip_local_reserved_ports"});
        const auto some = of_udp("ListenDatagram=192.0.2.0/24:30000-40000\nListenDatagram=192.0.2.0/24:51820");
        ASSERT_EQ(some.size(), 1U) << "one for each service";
        EXPECT_NE(some[0].find("add 32768-40000 to"), std::string::npos) << some[0];
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:53").empty());
        EXPECT_TRUE(of_udp("ListenStream=192.0.2.0/24:51820").empty()) << "a listener takes nothing";
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:*").empty()) << "clients need some";
        facts.reserved = {{8080, 8080}, {51000, 52000}};
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:51820").empty());
        EXPECT_EQ(of_udp("ListenDatagram=192.0.2.0/24:50999-51820").size(), 1U);
        facts.ephemeral = {10000, 20000};
        EXPECT_TRUE(of_udp("ListenDatagram=192.0.2.0/24:50999-51820").empty());
}

TEST(HostWarnings, APrefixOfWhichNothingIsLocal) {
        const auto of_routes = [](const std::string& lines) { return said(section(lines), host()); };
        EXPECT_EQ(
                of_routes("ListenStream=203.0.113.0/24:80"),
                std::vector<std::string>{"x.conf:3: ListenStream=: no address of 203.0.113.0/24 is local to this host, "
                                         "so that no packet gets to service web there: ip route add local "
                                         "203.0.113.0/24 dev lo"});
        EXPECT_TRUE(of_routes("ListenStream=192.0.2.128/25:80").empty());
        EXPECT_TRUE(of_routes("ListenStream=198.51.0.0/16:80").empty()) << "some of it is";
        EXPECT_TRUE(of_routes("ListenStream=80").empty());
        EXPECT_TRUE(of_routes("ListenStream=[2001:db8::1]:80").empty());
        const auto many = of_routes(
                "ListenStream=203.0.113.0/25:80\nListenDatagram=203.0.113.0/25:80\n"
                "ListenStream=203.0.113.128/25:80\nListenStream=[2001:db8:2::]/64:80");
        ASSERT_EQ(many.size(), 1U) << "one for each service";
        EXPECT_NE(many[0].find("203.0.113.0/25 and 2 more prefixes"), std::string::npos) << many[0];
}

TEST(HostWarnings, AServiceWhoseUnitsDoNotExist) {
        const auto of_units = [](const std::string& claims) {
                HostFacts facts = host();
                facts.units = {"web.service", "canary@.service", "canary@7.service", "home-a\\x2db.mount"};
                return said("[Service web]\n" + claims + "\nListenStream=192.0.2.0/24:80\n", facts);
        };
        EXPECT_EQ(of_units("Unit=wbe.service"),
                  std::vector<std::string>{"x.conf:2: Unit=: this host has no unit wbe.service (yet), so nobody can "
                                           "register for service web"});
        EXPECT_TRUE(of_units("Unit=wbe.service web.service").empty());
        EXPECT_TRUE(of_units("Unit=we*.service").empty());
        EXPECT_TRUE(of_units("Unit=canary@.service").empty());
        EXPECT_TRUE(of_units("Unit=canary@9.service").empty());
        EXPECT_EQ(of_units("Unit=other@9.service").size(), 1U);
        EXPECT_TRUE(of_units("User=1").empty());
}

TEST(HostWarnings, AServiceThatNamesAnAliasOfItsUnit) {
        const auto of_units = [](const std::string& claims) {
                HostFacts facts = host();
                facts.units = {"named.service", "getty@.service"};
                facts.aliases = {{"bind9.service", "named.service"}, {"autovt@.service", "getty@.service"}};
                return said("[Service web]\n" + claims + "\nListenStream=192.0.2.0/24:80\n", facts);
        };
        EXPECT_EQ(of_units("Unit=bind9.service"),
                  std::vector<std::string>{
                          "x.conf:2: Unit=: bind9.service is another name of named.service on this host, and a process "
                          "runs in named.service alone, so nobody can register for service web: write named.service"});
        EXPECT_NE(of_units("Unit=autovt@tty1.service").at(0).find("write getty@tty1.service"), std::string::npos);
        EXPECT_NE(of_units("Unit=autovt@.service").at(0).find("write getty@.service"), std::string::npos);
        EXPECT_NE(of_units("Unit=wbe.service bind9.service").at(0).find("write named.service"), std::string::npos);
        EXPECT_NE(of_units("Unit=bind*.service").at(0).find("has no unit bind*.service"), std::string::npos);
        EXPECT_TRUE(of_units("Unit=bind9.service named.service").empty()) << "for hosts with one name or the other";
}

TEST(HostWarnings, NothingIsSaidOfWhatIsNotKnown) {
        EXPECT_TRUE(said("[Service web]\nUnit=none.service\nListenStream=203.0.113.0/24:80\n", HostFacts{}).empty());
}

TEST(HostWarnings, AGroupThatSpansTwoServicesAndTheRemediesOfANamespace) {
        HostFacts facts = host();
        const auto bound = *parse_endpoint("127.0.0.2:53");
        const std::string policy =
                "[Service a]\nUser=1\nListenStream=192.0.2.1:80\n[Service b]\nUser=1\nListenStream=192.0.2.2:80\n";
        facts.registered = {{"a", Protocol::kUdp, bound}, {"b", Protocol::kTcp, bound}, {"a", Protocol::kUdp, bound}};
        EXPECT_TRUE(said(policy, facts).empty()) << "another protocol, and two of one service";
        facts.registered.push_back({"b", Protocol::kUdp, bound});
        const auto all = said(policy, facts);
        ASSERT_EQ(all.size(), 1U);
        EXPECT_TRUE(
                all[0].starts_with("x.conf:1: services a and b have sockets bound to udp 127.0.0.2:53: they are one "
                                   "SO_REUSEPORT group"))
                << all[0];

        facts = host();
        facts.netns = "edge";
        EXPECT_NE(said(section("ListenStream=203.0.113.0/24:80"), facts)
                          .at(0)
                          .find("ip -n edge route add local 203.0.113.0/24 dev lo"),
                  std::string::npos);
}

}  // namespace
}  // namespace sockbroker
