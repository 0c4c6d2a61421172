// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block of addresses that goes to one service or to another as a whole, thousands of times, while the program is
// asked about all of it. The two rule sets divide the work between a host prefix and the prefix that covers it in
// opposite ways, so that whoever takes the one step from the old rules and the other from the new is sent to a third
// service.
#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kHosts = 256;
constexpr std::array<std::uint16_t, 4> kPorts{53, 80, 443, 8443};
constexpr std::array kProtocols{Protocol::kTcp, Protocol::kUdp};
constexpr std::array kFamilies{Family::kIpv4, Family::kIpv6};

std::string host(Family family, unsigned i) {
        char text[16];
        std::snprintf(text, sizeof text, "%x", i);
        return family == Family::kIpv4 ? "192.0.2." + std::to_string(i) : std::string("2001:db8::") + text;
}

std::string block(Family family) {
        return family == Family::kIpv4 ? "192.0.2.0/24" : "2001:db8::/64";
}

class SwitchTest : public DataplaneTest {
protected:
        struct Served {
                ServiceId id = 0;
                std::vector<TestSocket> sockets;
                std::set<std::uint64_t> cookies;
        };

        Served serve_everywhere(std::string_view name) {
                Served served{.id = add(name)};
                for (const auto protocol : kProtocols) {
                        for (const auto family : kFamilies) {
                                served.sockets.push_back(make_socket(protocol, family));
                                served.cookies.insert(served.sockets.back().cookie);
                                serve(served.id, served.sockets.back());
                        }
                }
                return served;
        }

        // Each port of each host to `hosts`, the rest of the block to `covering`.
        static std::vector<Rule> divided(ServiceId hosts, Absent absent, ServiceId covering) {
                std::vector<Rule> set;
                for (const auto protocol : kProtocols) {
                        for (const auto family : kFamilies) {
                                set.push_back(rule(protocol, block(family), {}, covering));
                                for (unsigned i = 0; i < kHosts; i++) {
                                        const auto prefix =
                                                host(family, i) + (family == Family::kIpv4 ? "/32" : "/128");
                                        for (const auto port : kPorts) {
                                                set.push_back(rule(protocol, prefix, {port, port}, hosts, absent));
                                        }
                                }
                        }
                }
                return set;
        }

        // The n-th question about the block; all are asked in turn.
        static oracle::Packet question(unsigned n) {
                const auto protocol = kProtocols[n % 2];
                const auto family = kFamilies[n / 2 % 2];
                const auto port = kPorts[n / 4 % kPorts.size()];
                return packet(protocol, host(family, n / 16 * 101 % kHosts), port);
        }
};

TEST_F(SwitchTest, a_block_goes_to_one_service_or_the_other_as_a_whole) {
        open({.bindings = 8192, .services = 8, .sockets = 32});
        const auto a = serve_everywhere("a");
        const auto b = serve_everywhere("b");
        const auto mixed = serve_everywhere("mixed");
        const auto ghost = add("ghost");  // never has a socket: its rules hand on to the covering prefix
        // The host's rule of the one set and the covering prefix of the other lead to `mixed`.
        const std::array sets{divided(ghost, Absent::kNext, a.id), divided(b.id, Absent::kRefuse, mixed.id)};
        rules(sets[0]);

        constexpr unsigned kSwitches = 2000;
        std::atomic<unsigned> switches = 0;
        std::atomic<bool> stop = false;
        std::thread switcher([&] {
                const auto end = std::chrono::steady_clock::now() + 60s;
                while (!stop && switches < kSwitches && std::chrono::steady_clock::now() < end) {
                        EXPECT_TRUE(dataplane_->set_rules(sets[(switches + 1) % 2]));
                        switches++;
                }
                stop = true;
        });
        std::uint64_t asked = 0;
        std::array<std::uint64_t, 2> answers{};
        constexpr int kRepeat = 100;
        for (unsigned n = 0; !stop && !HasFailure(); n++) {
                const Reply reply = ask_often(question(n), kRepeat);
                const bool from_a = a.cookies.contains(reply.cookie);
                EXPECT_TRUE(from_a || b.cookies.contains(reply.cookie))
                        << (mixed.cookies.contains(reply.cookie) ? "a mix of old and new" : "nobody")
                        << " for question " << n << " after " << switches << " switches";
                answers[from_a ? 0 : 1]++;
                asked += kRepeat;
                std::this_thread::yield();  // a grace period waits for a processor that never leaves the kernel
        }
        stop = true;
        switcher.join();
        EXPECT_GT(switches, 1000U);
        EXPECT_GT(answers[0], asked / kRepeat / 10);
        EXPECT_GT(answers[1], asked / kRepeat / 10);

        // What the last of each repeated run said is seen above; the program's own counters tell of all of them.
        EXPECT_EQ(dataplane_->counters(mixed.id).lookups, 0U);
        const auto of_a = dataplane_->counters(a.id), of_b = dataplane_->counters(b.id);
        EXPECT_EQ(of_a.assigned + of_b.assigned, asked) << "a packet was lost";
        EXPECT_EQ(of_a.no_socket + of_b.no_socket, 0U);
        EXPECT_EQ(dataplane_->counters(ghost).no_socket, of_a.assigned) << "the way to a is over ghost, and no other";
        std::printf("%u switches, %llu lookups: %llu to a, %llu to b\n", switches.load(),
                    static_cast<unsigned long long>(asked), static_cast<unsigned long long>(of_a.assigned),
                    static_cast<unsigned long long>(of_b.assigned));
}

// The same with clients told apart: a longer source hands on to a shorter one of the same prefix.
TEST_F(SwitchTest, sources_switch_with_the_rules) {
        open();
        const auto a = serve_everywhere("a");
        const auto b = serve_everywhere("b");
        const auto mixed = serve_everywhere("mixed");
        const auto ghost = add("ghost");
        const auto divided_by_source = [](ServiceId narrow, Absent absent, ServiceId wide, unsigned others) {
                std::vector<Rule> set;
                for (unsigned i = 0; i < others; i++) {  // of other clients: they only move the rest about
                        set.push_back(rule(Protocol::kUdp, "192.0.2.0/24", {53, 53}, narrow, absent));
                        set.back().source = *parse_prefix("172." + std::to_string(16 + i % 16) + ".0.0/16");
                }
                set.push_back(rule(Protocol::kUdp, "192.0.2.0/24", {53, 53}, narrow, absent));
                set.back().source = *parse_prefix("10.1.0.0/16");
                set.push_back(rule(Protocol::kUdp, "192.0.2.0/24", {53, 53}, wide));
                set.back().source = *parse_prefix("10.0.0.0/8");
                return set;
        };
        const std::array sets{divided_by_source(ghost, Absent::kNext, a.id, 3),
                              divided_by_source(b.id, Absent::kRefuse, mixed.id, 16)};
        rules(sets[0]);
        std::atomic<unsigned> switches = 0;
        std::atomic<bool> stop = false;
        std::thread switcher([&] {
                while (!stop) {
                        EXPECT_TRUE(dataplane_->set_rules(sets[(switches + 1) % 2]));
                        switches++;
                }
        });
        std::uint64_t asked = 0;
        const auto end = std::chrono::steady_clock::now() + 4s;
        auto one = packet(Protocol::kUdp, "192.0.2.1", 53);
        one.from = *parse_address("10.1.2.3");
        while (std::chrono::steady_clock::now() < end && !HasFailure()) {
                const Reply reply = ask_often(one, 200);
                EXPECT_TRUE(a.cookies.contains(reply.cookie) || b.cookies.contains(reply.cookie));
                asked += 200;
                std::this_thread::yield();
        }
        stop = true;
        switcher.join();
        EXPECT_GT(switches, 50U);
        EXPECT_EQ(dataplane_->counters(mixed.id).lookups, 0U);
        EXPECT_EQ(dataplane_->counters(a.id).assigned + dataplane_->counters(b.id).assigned, asked);
}

}  // namespace
}  // namespace sockbroker
