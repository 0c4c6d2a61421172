// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which cgroup is a unit's, and which ports policy grants it.
#include <numeric>

#include <gtest/gtest.h>

#include "broker/policy/parse.h"
#include "broker/udp/replies.h"
#include "broker/udp/unit_cgroup.h"

namespace sockbroker {
namespace {

TEST(UnitCgroup, is_the_first_below_slices_of_that_name) {
        EXPECT_EQ(unit_path("/system.slice/x.service", "x.service"), "/system.slice/x.service");
        EXPECT_EQ(unit_path("/system.slice/x.service/worker", "x.service"), "/system.slice/x.service");
        EXPECT_EQ(unit_path("/a.slice/a-b.slice/x@1.service/.control", "x@1.service"),
                  "/a.slice/a-b.slice/x@1.service");
        EXPECT_EQ(unit_path("/init.scope", "init.scope"), "/init.scope");
        // The kernel could take the name for a file of its own.
        EXPECT_EQ(unit_path("/system.slice/_cpu.service", "cpu.service"), "/system.slice/_cpu.service");
        EXPECT_EQ(unit_path("/user.slice/user-1.slice/user@1.service/app.slice/x.service", "user@1.service"),
                  "/user.slice/user-1.slice/user@1.service");
}

TEST(UnitCgroup, is_none_that_another_unit_made) {
        EXPECT_FALSE(unit_path("/user.slice/user-1.slice/user@1.service/app.slice/x.service", "x.service"));
        EXPECT_FALSE(unit_path("/system.slice/x.service/system.slice/dns.service", "dns.service"));
        EXPECT_FALSE(unit_path("/system.slice", "x.service"));
        EXPECT_FALSE(unit_path("/", "x.service"));
        EXPECT_FALSE(unit_path("", "x.service"));
        EXPECT_FALSE(unit_path("/system.slice/x.service", ""));
        EXPECT_FALSE(unit_path("system.slice/x.service", "x.service"));
}

// A service for each unit, with these UDP ports, a line each.
std::string asking(const std::string& name, const std::string& unit, std::uint16_t first, std::uint16_t count,
                   const std::string& prefix = "192.0.2.0/24") {
        auto text = "[Service " + name + "]\nUnit=" + unit + "\nUdpReply=original\n";
        for (unsigned port = first; port < first + count; port++) {
                text += "ListenDatagram=" + prefix + ":" + std::to_string(port) + "\n";
        }
        return text;
}

std::vector<std::uint16_t> ports_from(std::uint16_t first, std::uint16_t count) {
        std::vector<std::uint16_t> ports(count);
        std::iota(ports.begin(), ports.end(), first);
        return ports;
}

TEST(Granted, are_the_udp_ports_of_the_services) {
        const auto parsed = parse_policy({{"x.conf", R"([Service dns]
Unit=dns.service
ListenDatagram=1.0.0.0/24:53
ListenDatagram=[2606:4700::]/32:53
ListenDatagram=1.0.0.0/24:853
ListenStream=1.0.0.0/24:54
UdpReply=original
[Service ntp]
Unit=*.service
ListenDatagram=1.0.0.0/24:123
UdpReply=original
)"}},
                                         {});
        ASSERT_TRUE(parsed.policy);
        const auto* dns = parsed.policy->find("dns");
        const auto* ntp = parsed.policy->find("ntp");
        EXPECT_EQ(granted_ports({dns, ntp}).ports, (std::vector<std::uint16_t>{53, 123, 853}));
        EXPECT_EQ(granted_ports({ntp}).ports, (std::vector<std::uint16_t>{123}));
        EXPECT_TRUE(granted_ports({}).ports.empty());
}

TEST(Granted, are_those_of_the_first_services_where_there_is_no_room_for_all) {
        const auto parsed =
                parse_policy({{"x.conf", asking("one", "a.service", 100, 31) + asking("two", "b.service", 50, 3) +
                                                 asking("three", "c.service", 100, 2, "198.51.100.0/24")}},
                             {});
        ASSERT_TRUE(parsed.policy);
        const auto granted =
                granted_ports({parsed.policy->find("one"), parsed.policy->find("two"), parsed.policy->find("three")});
        auto expected = ports_from(100, 31);
        expected.insert(expected.begin(), 50);
        EXPECT_EQ(granted.ports, expected);
        EXPECT_EQ(granted.left_out, (std::vector<std::uint16_t>{51, 52}));
        EXPECT_NE(text_of_left_out("a.service", granted).find("a.service has 32 UDP ports"), std::string::npos);
        EXPECT_NE(text_of_left_out("a.service", granted).find("may not bind 51 52;"), std::string::npos);
        EXPECT_NE(text_of_left_out("a.service", {.ports = {}, .left_out = ports_from(1, 12)})
                          .find("may not bind 1 2 3 4 5 6 7 8 9 10 and 2 more;"),
                  std::string::npos);
}

TEST(PortsOfAUnit, the_first_beyond_what_can_be_granted_is_an_error_of_its_line) {
        const auto dns = asking("dns", "dns.service", 100, 20);
        const auto errors = [&](const std::string& more) {
                return parse_policy({{"10-x.conf", dns}, {"60-y.conf", more}}, {}).diagnostics;
        };
        EXPECT_TRUE(errors(asking("a", "dns.service", 110, 22, "198.51.100.0/24")).empty());
        EXPECT_TRUE(errors(asking("a", "other.service", 200, 32)).empty());
        const auto all = errors(asking("a", "x.service dns.service", 110, 25, "198.51.100.0/24"));
        ASSERT_EQ(all.size(), 1U);
        EXPECT_EQ(all[0].to_string(),
                  "60-y.conf:26: service a has UdpReply=original, and port 132 is one more than the 32 UDP ports that "
                  "dns.service can be granted: let another unit have some of them");
        EXPECT_EQ(all[0].severity, Severity::kError);
}

TEST(PortsOfAUnit, a_pattern_may_mean_units_that_need_fewer) {
        const auto parsed = parse_policy(
                {{"x.conf", asking("a", "dns-*.service", 100, 16) + asking("b", "dns-*.service", 200, 17)}}, {});
        ASSERT_TRUE(parsed.policy);
        ASSERT_EQ(parsed.diagnostics.size(), 1U);
        EXPECT_EQ(parsed.diagnostics[0].to_string(),
                  "x.conf:39: service b has UdpReply=original, and port 216 is one more than the 32 UDP ports that a "
                  "unit of dns-*.service can be granted: let another unit have some of them");
        EXPECT_EQ(parsed.diagnostics[0].severity, Severity::kWarning);
}

}  // namespace
}  // namespace sockbroker
