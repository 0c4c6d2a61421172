// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The loaded program and its switches: it answers as the specification says, and never a mixture of old and new.
#include <chrono>
#include <set>
#include <thread>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

using namespace std::chrono_literals;
using oracle::Answer;
using oracle::Verdict;

constexpr std::array kProtocols{Protocol::kTcp, Protocol::kUdp};
constexpr std::array kFamilies{Family::kIpv4, Family::kIpv6};

std::string fmt_address(unsigned i) {
        return "1.2." + std::to_string(i / 256) + "." + std::to_string(i % 256) + "/32";
}

TEST_F(DataplaneTest, equals_the_oracle) {
        open();
        constexpr ServiceId kServices = 8;
        std::vector<TestSocket> sockets;
        std::map<std::uint64_t, ServiceId> owner;
        for (ServiceId id = 1; id <= kServices; id++) {
                const ServiceId service = add("s" + std::to_string(id));
                ASSERT_EQ(service, id);
                for (const Protocol protocol : kProtocols) {
                        for (const Family family : kFamilies) {
                                // The last three services have nobody, or only one family, or only one protocol.
                                if (id == 8 || (id == 7 && family == Family::kIpv6) ||
                                    (id == 6 && protocol == Protocol::kUdp)) {
                                        continue;
                                }
                                sockets.push_back(make_socket(protocol, family));
                                owner[sockets.back().cookie] = id;
                                serve(service, sockets.back());
                        }
                }
        }
        const auto end = std::chrono::steady_clock::now() + 10s;
        std::uint64_t asked = 0;
        std::array<std::uint64_t, 3> verdicts{};
        std::uint32_t seed = 0;
        while (std::chrono::steady_clock::now() < end) {
                oracle::Generator generator(++seed);
                const std::vector<oracle::Shape> shapes{
                        {.rules = 10, .services = kServices},
                        {.rules = 200, .services = kServices},
                        {.rules = 400, .services = kServices, .conditions = 0},
                        {.rules = 300, .services = kServices, .conditions = 0.4, .many_ports = true}};
                const auto set = generator.rules(shapes[seed % shapes.size()]);
                rules(set);
                for (int i = 0; i < 1500; i++) {
                        auto packet = generator.packet(set);
                        packet.ifindex = 0;  // see run()
                        const auto live = [&](ServiceId id) {
                                return !(id == 8 || (id == 7 && packet.to.family == Family::kIpv6) ||
                                         (id == 6 && packet.protocol == Protocol::kUdp));
                        };
                        const Answer want = oracle::ask(set, packet, live);
                        const Reply reply = ask(packet);
                        const Verdict got = reply.cookie != 0 ? Verdict::kSocket
                                            : reply.passed    ? Verdict::kPass
                                                              : Verdict::kRefused;
                        ASSERT_EQ(got, want.verdict) << "seed " << seed << ", " << packet.to.to_string() << " port "
                                                     << packet.port << ", service " << want.service;
                        if (got == Verdict::kSocket) {
                                ASSERT_EQ(owner[reply.cookie], want.service) << "seed " << seed;
                        }
                        verdicts[static_cast<std::size_t>(got)]++;
                        asked++;
                }
        }
        for (const std::uint64_t count : verdicts) {
                EXPECT_GT(count, asked / 50) << "the packets must meet every verdict, or this test says little";
        }
        std::printf("%llu packets of %u rule sets: %llu sockets, %llu refused, %llu passed\n",
                    static_cast<unsigned long long>(asked), seed, static_cast<unsigned long long>(verdicts[0]),
                    static_cast<unsigned long long>(verdicts[1]), static_cast<unsigned long long>(verdicts[2]));
}

// Two rule sets that have nothing in common but the questions. Whoever read half of each would find nothing, or a
// service that neither set gives to this address.
TEST_F(DataplaneTest, a_switch_of_rules_shows_the_old_or_the_new) {
        open();
        const auto socket_a = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto socket_b = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto socket_other = make_socket(Protocol::kUdp, Family::kIpv4);
        const ServiceId a = add("a"), b = add("b"), other = add("other"), dead = add("dead");
        serve(a, socket_a);
        serve(b, socket_b);
        serve(other, socket_other);
        const auto set_a = [&] {
                std::vector<Rule> set{rule(Protocol::kUdp, "1.0.0.0/8", {}, a)};
                for (unsigned i = 0; i < 200; i++) {
                        set.push_back(rule(Protocol::kUdp, "1.0.0.0/" + std::to_string(9 + i % 24),
                                           {static_cast<std::uint16_t>(1 + i), static_cast<std::uint16_t>(1 + i)}, dead,
                                           Absent::kNext));
                }
                return set;
        }();
        const auto set_b = [&] {
                std::vector<Rule> set{rule(Protocol::kUdp, "1.0.0.0/32", {}, b)};
                for (unsigned i = 0; i < 1000; i++) {
                        set.push_back(rule(Protocol::kUdp, fmt_address(i), {}, other));
                }
                return set;
        }();
        std::atomic<bool> stop = false;
        unsigned switches = 0;
        rules(set_a);
        std::thread switcher([&] {
                while (!stop) {
                        EXPECT_TRUE(dataplane_->set_rules(switches % 2 == 0 ? set_b : set_a));
                        switches++;
                }
        });
        std::set<std::uint64_t> seen;
        const auto end = std::chrono::steady_clock::now() + 2s;
        for (std::uint16_t port = 1; std::chrono::steady_clock::now() < end; port = port % 220 + 1) {
                const Reply reply = ask(packet(Protocol::kUdp, "1.0.0.0", port));
                seen.insert(reply.cookie);
        }
        stop = true;
        switcher.join();
        EXPECT_EQ(seen, (std::set{socket_a.cookie, socket_b.cookie})) << "in " << switches << " switches";
        EXPECT_GT(switches, 20U);
}

// Continuous hand-over: a new socket, the switch, the old one taken out at once, its slot given to the other service as
// soon as may be. The window is a few instructions wide, so the program runs millions of times within the kernel and
// its own counters tell: a client refused would be no_socket; one service is TCP, the other UDP, so a slot that changed
// hands too early would be error_protocol.
TEST_F(DataplaneTest, hand_over_loses_nothing_and_mixes_nothing_up) {
        open({.bindings = 100, .services = 4, .sockets = 1024});
        const std::array protocols{Protocol::kTcp, Protocol::kUdp};
        const std::array services{add("one"), add("two")};
        std::array<std::vector<TestSocket>, 2> sockets;
        std::array<std::set<std::uint64_t>, 2> cookies;
        for (std::size_t i = 0; i < 2; i++) {
                for (unsigned n = 0; n < 3; n++) {
                        sockets[i].push_back(make_socket(protocols[i], Family::kIpv6));
                        cookies[i].insert(sockets[i].back().cookie);
                }
                serve(services[i], sockets[i][0]);
        }
        rules({rule(Protocol::kTcp, "2606:4700::/32", {80, 80}, services[0]),
               rule(Protocol::kUdp, "2606:4700::/32", {80, 80}, services[1])});
        std::atomic<bool> stop = false;
        unsigned handovers = 0;
        std::thread changer([&] {
                while (!stop) {
                        for (std::size_t i = 0; i < 2; i++) {
                                Targets targets = dataplane_->targets(services[i]);
                                const Slot old = first(targets, protocols[i], Family::kIpv6);
                                serve(services[i], sockets[i][handovers % 3]);
                                dataplane_->remove(old);
                        }
                        handovers++;
                }
        });
        const auto end = std::chrono::steady_clock::now() + 4s;
        constexpr int kRepeat = 5000;
        std::uint64_t asked = 0;
        while (std::chrono::steady_clock::now() < end && !HasFailure()) {
                for (std::size_t i = 0; i < 2; i++) {
                        const Reply reply = ask_often(packet(protocols[i], "2606:4700::1", 80), kRepeat);
                        EXPECT_TRUE(cookies[i].contains(reply.cookie))
                                << "service " << i << ": cookie " << reply.cookie;
                }
                asked += kRepeat;
        }
        stop = true;
        changer.join();
        EXPECT_GT(handovers, 1000U);
        std::printf("%u hand-overs, %llu lookups\n", 2 * handovers, static_cast<unsigned long long>(2 * asked));
        for (const ServiceId id : services) {
                const auto counters = dataplane_->counters(id);
                EXPECT_EQ(counters.lookups, asked);
                EXPECT_EQ(counters.assigned, counters.lookups);
                EXPECT_EQ(counters.no_socket, 0U);
                EXPECT_EQ(counters.error_protocol, 0U);
        }
}

TEST_F(DataplaneTest, all_protocols_and_families_of_a_service_switch_together) {
        open();
        const ServiceId id = add("dns");
        std::vector<std::array<TestSocket, 2>> sets;
        std::vector<Targets> targets(2);
        for (std::size_t set = 0; set < 2; set++) {
                sets.push_back(
                        {make_socket(Protocol::kUdp, Family::kIpv4), make_socket(Protocol::kTcp, Family::kIpv6)});
                for (const TestSocket& socket : sets[set]) {
                        first(targets[set], socket.protocol, socket.family) = install(socket, id);
                }
        }
        ASSERT_TRUE(dataplane_->set_targets(id, targets[0]));
        EXPECT_EQ(dataplane_->targets(id), targets[0]);
        rules({rule(Protocol::kUdp, "1.0.0.0/24", {}, id), rule(Protocol::kTcp, "2a00::/16", {}, id)});
        std::atomic<unsigned> switches = 0;
        std::atomic<bool> stop = false;
        std::thread switcher([&] {
                while (!stop) {
                        EXPECT_TRUE(dataplane_->set_targets(id, targets[(switches + 1) % 2]));
                        switches++;
                }
        });
        const auto end = std::chrono::steady_clock::now() + 1s;
        while (std::chrono::steady_clock::now() < end) {
                const Reply udp = ask(packet(Protocol::kUdp, "1.0.0.1", 53));
                const Reply tcp = ask(packet(Protocol::kTcp, "2a00::1", 53));
                EXPECT_TRUE(udp.cookie == sets[0][0].cookie || udp.cookie == sets[1][0].cookie);
                EXPECT_TRUE(tcp.cookie == sets[0][1].cookie || tcp.cookie == sets[1][1].cookie);
        }
        stop = true;
        switcher.join();
        EXPECT_GT(switches, 1000U);
        for (unsigned i = 0; i < 2; i++) {  // at rest both are of one set
                ASSERT_TRUE(dataplane_->set_targets(id, targets[i]));
                EXPECT_EQ(ask(packet(Protocol::kUdp, "1.0.0.1", 53)).cookie, sets[i][0].cookie);
                EXPECT_EQ(ask(packet(Protocol::kTcp, "2a00::1", 53)).cookie, sets[i][1].cookie);
        }
}

TEST_F(DataplaneTest, rules_that_cannot_be_leave_the_old_ones) {
        open({.bindings = 10, .services = 4, .sockets = 4});
        const auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
        const ServiceId id = add("dns");
        serve(id, socket);
        rules({rule(Protocol::kUdp, "1.0.0.0/24", {53, 53}, id)});
        std::vector<Rule> many;
        for (unsigned i = 0; i < 11; i++) {
                many.push_back(rule(Protocol::kUdp, fmt_address(i), {}, id));
        }
        const auto too_many = dataplane_->set_rules(many);
        ASSERT_FALSE(too_many);
        EXPECT_EQ(too_many.error().errnum, ENOSPC);
        EXPECT_NE(too_many.error().message.find("11 bindings"), std::string::npos) << too_many.error().message;
        const auto contradiction = dataplane_->set_rules(
                {rule(Protocol::kUdp, "9.0.0.0/8", {}, id), rule(Protocol::kUdp, "9.0.0.0/8", {}, id + 1)});
        EXPECT_FALSE(contradiction);
        EXPECT_EQ(ask(packet(Protocol::kUdp, "1.0.0.1", 53)).cookie, socket.cookie);
        EXPECT_EQ(ask(packet(Protocol::kUdp, "9.0.0.1", 53)).cookie, 0U);
}

}  // namespace
}  // namespace sockbroker
