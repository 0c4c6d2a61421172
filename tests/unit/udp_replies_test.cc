// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which cgroup is a unit's, and which ports policy grants it.
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

TEST(Granted, are_the_ports_of_all_services_that_name_the_unit_and_ask_for_it) {
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
[Service plain]
Unit=dns.service
ListenDatagram=1.0.0.0/24:7
)"}},
                                         {});
        ASSERT_TRUE(parsed.policy);
        EXPECT_EQ(granted_ports(*parsed.policy, "dns.service"), (std::vector<std::uint16_t>{53, 123, 853}));
        EXPECT_EQ(granted_ports(*parsed.policy, "x.service"), (std::vector<std::uint16_t>{123}));
        EXPECT_EQ(granted_ports(*parsed.policy, "dns.socket"), std::vector<std::uint16_t>{});
        EXPECT_TRUE(has_replies(*parsed.policy, "x.service"));
        EXPECT_FALSE(has_replies(*parsed.policy, "dns.socket"));
        EXPECT_FALSE(has_replies(*parsed.policy, ""));
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
