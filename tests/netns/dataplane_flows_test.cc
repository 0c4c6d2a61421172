// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpFlows=stay: which flows go on to the socket that has served them, what a flood displaces, and that a slot which is
// taken anew never gets a flow of the socket that was there.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <iostream>
#include <random>
#include <thread>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/mapping.h"
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

struct Client {
        oracle::Packet packet;
        std::uint16_t port = 0;
};

class Flows : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open({.bindings = 64, .services = 8, .sockets = 100});
                id_ = add("quic");
                other_ = add("other");
                set_rules();
        }

        void set_rules() {
                rules({rule(Protocol::kUdp, "1.0.0.0/8", {443, 443}, id_),
                       rule(Protocol::kUdp, "2a00::/8", {443, 443}, id_),
                       rule(Protocol::kTcp, "1.0.0.0/8", {443, 443}, id_),
                       rule(Protocol::kUdp, "9.0.0.0/8", {443, 443}, other_)});
        }

        // Newest first.
        void serve_by(std::vector<Slot> slots, Family family, bool stay = true, bool share = false) {
                Targets targets{.share = share, .stay = stay};
                targets.slots[1][static_cast<std::size_t>(family)] = std::move(slots);
                const auto set = dataplane_->set_targets(id_, targets);
                ASSERT_TRUE(set) << set.error().text();
                EXPECT_EQ(dataplane_->targets(id_), targets);
        }

        std::vector<Client> clients(std::size_t count, Family family = Family::kIpv4) {
                std::vector<Client> result(count);
                for (auto& [one, port] : result) {
                        one = packet(Protocol::kUdp, family == Family::kIpv4 ? "1.0.0.1" : "2a00::1", 443);
                        for (const std::size_t byte : {1U, 2U, 3U}) {
                                one.to.bytes.at(byte) = static_cast<std::uint8_t>(random_());
                                one.from.bytes.at(byte) = static_cast<std::uint8_t>(random_());
                        }
                        port = static_cast<std::uint16_t>(1024 + random_() % 60000);
                }
                return result;
        }

        [[nodiscard]] std::uint64_t ask(const Client& client) const {
                return run(program_.get(), client.packet, 1, client.port).cookie;
        }

        // How many of them this socket answers.
        [[nodiscard]] std::ptrdiff_t answered_by(const TestSocket& socket, const std::vector<Client>& all) const {
                return std::ranges::count_if(all, [&](const Client& one) { return ask(one) == socket.cookie; });
        }

        // As many sources as that, which nobody has, speak so many times each.
        void flood(std::size_t sources, int times) {
                constexpr std::size_t kAtOnce = 65536;
                for (std::size_t done = 0; done < sources; done += kAtOnce) {
                        for (const Client& one : clients(std::min(kAtOnce, sources - done))) {
                                for (int i = 0; i < times; i++) {
                                        (void)ask(one);
                                }
                        }
                }
        }

        void forget_all() {
                const auto map = pinned("flows");
                const auto lines = Mapping<sb_flow_line>::create(map.get(), SB_FLOW_LINES, "flows");
                ASSERT_TRUE(lines);
                for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                        (*lines)[line] = {};
                }
        }

        ServiceId id_ = 0;
        ServiceId other_ = 0;
        std::mt19937 random_{20261128};
};

// That fewer than all ways of a set are taken, where so many flows fall on all sets by chance (Poisson).
double share_with_a_place(double flows) {
        const double mean = flows / double{SB_FLOW_LINES};
        double term = std::exp(-mean);
        double sum = 0;
        for (int taken = 0; taken < SB_FLOW_WAYS; taken++) {
                sum += term;
                term *= mean / (taken + 1);
        }
        return sum;
}

TEST_F(Flows, go_on_to_the_socket_that_has_served_them_and_new_ones_to_the_newest) {
        for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                const auto first = make_socket(Protocol::kUdp, family);
                auto second = make_socket(Protocol::kUdp, family);
                const Slot one = install(first, id_);
                serve_by({one}, family);
                const auto known = clients(1000, family);
                EXPECT_EQ(answered_by(first, known), 1000);
                const Slot two = install(second, id_);
                serve_by({two, one}, family);
                EXPECT_EQ(answered_by(first, known), 1000);
                const auto fresh = clients(1000, family);
                EXPECT_EQ(answered_by(second, fresh), 1000);
                EXPECT_EQ(answered_by(first, known), 1000);

                // Also where no target names the old one any more, and after a restart and in larger maps.
                serve_by({two}, family);
                EXPECT_EQ(answered_by(first, known), 1000);
                open({.bindings = 64, .services = 8, .sockets = family == Family::kIpv4 ? 200U : 300U});
                EXPECT_EQ(dataplane_->not_grown(), "");
                EXPECT_EQ(answered_by(first, known), 1000);
                EXPECT_EQ(answered_by(second, fresh), 1000);

                EXPECT_EQ(dataplane_->flows().at(one), 1000U);
                EXPECT_EQ(dataplane_->flows().at(two), 1000U);
                second.fd.reset();
                EXPECT_EQ(answered_by(second, fresh), 0) << "its last descriptor was closed";
                dataplane_->remove(one);
                EXPECT_EQ(answered_by(first, known), 0);
                dataplane_->remove(two);
        }
}

TEST_F(Flows, without_stay_all_go_to_the_newest_and_nothing_is_noted) {
        const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(first, id_);
        serve_by({one}, Family::kIpv4, false);
        const auto known = clients(1000);
        EXPECT_EQ(answered_by(first, known), 1000);
        EXPECT_EQ(answered_by(first, known), 1000);
        serve_by({install(second, id_), one}, Family::kIpv4, false);
        EXPECT_EQ(answered_by(second, known), 1000);
        EXPECT_EQ(std::ranges::count(dataplane_->flows(), 0U), static_cast<std::ptrdiff_t>(dataplane_->flows().size()));
}

TEST_F(Flows, of_services_that_share_do_not_move_when_a_socket_comes) {
        std::vector<TestSocket> sockets;
        std::vector<Slot> slots;
        const auto come = [&] {
                sockets.push_back(make_socket(Protocol::kUdp, Family::kIpv4));
                slots.push_back(install(sockets.back(), id_));
                serve_by(slots, Family::kIpv4, true, true);
        };
        for (int i = 0; i < 6; i++) {  // more than a record names
                come();
        }
        const auto known = clients(1000);
        std::vector<std::uint64_t> before;
        std::ranges::transform(known, std::back_inserter(before), [&](const Client& one) { return ask(one); });
        come();
        std::vector<std::uint64_t> after;
        std::ranges::transform(known, std::back_inserter(after), [&](const Client& one) { return ask(one); });
        EXPECT_EQ(before, after);
        EXPECT_GT(answered_by(sockets.back(), clients(1000)), 80) << "new flows are spread over all seven";
        sockets.front().fd.reset();
        EXPECT_EQ(std::ranges::count_if(known, [&](const Client& one) { return ask(one) == 0; }), 0);
}

TEST_F(Flows, of_a_socket_whose_service_is_gone_go_to_who_reads) {
        const auto held = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto next = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(held, id_);
        serve_by({one}, Family::kIpv4);
        const auto known = clients(100);
        EXPECT_EQ(answered_by(held, known), 100);
        EXPECT_EQ(answered_by(held, known), 100);
        const auto marked = dataplane_->set_registrant(
                one, {.service = id_, .cookie = held.cookie, .protocol = Protocol::kUdp, .gone_usec = 1});
        ASSERT_TRUE(marked) << marked.error().text();
        serve_by({install(next, id_), one}, Family::kIpv4);
        EXPECT_EQ(answered_by(next, known), 100);
}

TEST_F(Flows, that_are_unknown_displace_nobody_who_speaks) {
        const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(first, id_);
        serve_by({one}, Family::kIpv4);
        const auto sessions = clients(1000);
        EXPECT_EQ(answered_by(first, sessions), 1000);
        EXPECT_EQ(answered_by(first, sessions), 1000);
        serve_by({install(second, id_), one}, Family::kIpv4);
        for (int i = 0; i < 20; i++) {  // 1.2 million, twice what the table holds, each once
                EXPECT_EQ(answered_by(second, clients(60000)), 60000);
        }
        EXPECT_EQ(answered_by(first, sessions), 1000);
}

// An older and a newer instance.
class FlowsBesideFloods : public Flows {
protected:
        static constexpr std::array<std::size_t, 3> kFloods{131072, 262144, 524288};

        void SetUp() override {
                Flows::SetUp();
                older_ = make_socket(Protocol::kUdp, Family::kIpv4);
                newer_ = make_socket(Protocol::kUdp, Family::kIpv4);
                slots_ = {install(newer_, id_), install(older_, id_)};
        }

        // By the older one, which has no flow yet.
        void serve_anew() {
                forget_all();
                serve_by({slots_.back()}, Family::kIpv4);
        }

        void hand_over() { serve_by(slots_, Family::kIpv4); }

        TestSocket older_;

private:
        TestSocket newer_;
        std::vector<Slot> slots_;
};

TEST_F(FlowsBesideFloods, that_are_unknown_displace_by_chance_those_that_have_spoken_once) {
        for (const auto invented : kFloods) {
                serve_anew();
                const auto begun = clients(1000);
                EXPECT_EQ(answered_by(older_, begun), 1000);
                flood(invented, 1);
                hand_over();
                const auto stayed = answered_by(older_, begun);
                std::cout << invented
                          << " datagrams of invented sources between the first and the second of a session: "
                          << 1000 - stayed << " of 1,000 lost\n";
                EXPECT_NEAR(static_cast<double>(stayed), 1000 * share_with_a_place(static_cast<double>(invented)), 60);
        }
}

TEST_F(FlowsBesideFloods, that_are_unknown_and_speak_twice_leave_no_place_for_new_ones) {
        for (const auto invented : kFloods) {
                serve_anew();
                const auto before = clients(1000);
                EXPECT_EQ(answered_by(older_, before), 1000);
                EXPECT_EQ(answered_by(older_, before), 1000);
                flood(invented, 2);
                const auto begun = clients(1000);
                EXPECT_EQ(answered_by(older_, begun), 1000);
                EXPECT_EQ(answered_by(older_, begun), 1000);
                hand_over();
                EXPECT_EQ(answered_by(older_, before), 1000);
                const auto stayed = answered_by(older_, begun);
                std::cout << invented << " pairs of invented sources: " << 1000 - stayed
                          << " of 1,000 sessions lost that began afterwards, none of before\n";
                EXPECT_NEAR(static_cast<double>(stayed), 1000 * share_with_a_place(static_cast<double>(invented)), 60);
        }
}

TEST_F(Flows, never_reach_another_service_however_slots_are_used_again) {
        const auto always = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot stays = install(always, id_);
        serve_by({stays}, Family::kIpv4);
        std::atomic<bool> ends = false;
        std::atomic<std::uint64_t> wrong = 0;
        std::atomic<std::uint64_t> asked = 0;
        std::atomic<std::uint64_t> foreign = 0;  // cookie of a socket of the other service
        const auto all = clients(50);
        std::thread asking([&] {
                while (!ends) {
                        for (const Client& one : all) {
                                const auto before = foreign.load();
                                const auto answer = ask(one);
                                wrong += answer != 0 && (answer == before || answer == foreign.load()) ? 1 : 0;
                                asked++;
                        }
                }
        });
        for (int round = 0; round < 300; round++) {
                auto mine = make_socket(Protocol::kUdp, Family::kIpv4);
                const Slot slot = install(mine, id_);
                serve_by({slot, stays}, Family::kIpv4);
                const auto until = asked + 60;
                while (asked < until) {
                        std::this_thread::yield();
                }
                serve_by({stays}, Family::kIpv4);
                dataplane_->remove(slot);
                auto theirs = make_socket(Protocol::kUdp, Family::kIpv4);
                foreign = theirs.cookie;
                const Slot taken = install(theirs, other_);
                while (asked < until + 60) {
                        std::this_thread::yield();
                }
                dataplane_->remove(taken);
                foreign = 0;
        }
        ends = true;
        asking.join();
        EXPECT_EQ(wrong, 0U) << "of " << asked;
}

TEST_F(Flows, that_were_silent_for_long_are_swept_and_do_not_count) {
        const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(first, id_);
        serve_by({one}, Family::kIpv4);
        const auto known = clients(100);
        EXPECT_EQ(answered_by(first, known), 100);
        EXPECT_EQ(dataplane_->flows().at(one), 0U) << "one datagram is no session";
        EXPECT_EQ(answered_by(first, known), 100);
        EXPECT_EQ(dataplane_->flows().at(one), 100U);
        dataplane_->sweep_flows();
        EXPECT_EQ(dataplane_->flows().at(one), 100U);

        // As if they had come SB_FLOW_IDLE + 1 units of time ago.
        const auto map = pinned("flows");
        const auto lines = Mapping<sb_flow_line>::create(map.get(), SB_FLOW_LINES, "flows");
        ASSERT_TRUE(lines);
        std::size_t noted = 0;
        for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                for (auto& entry : (*lines)[line].entry) {
                        if (entry != 0) {
                                const auto time = (entry >> SB_FLOW_TIME_SHIFT) - SB_FLOW_IDLE - 1;
                                entry &= ~(std::uint64_t{SB_FLOW_TIMES} << SB_FLOW_TIME_SHIFT);
                                entry |= (time & SB_FLOW_TIMES) << SB_FLOW_TIME_SHIFT;
                                noted++;
                        }
                }
        }
        EXPECT_EQ(noted, 100U);
        serve_by({install(second, id_), one}, Family::kIpv4);
        EXPECT_EQ(dataplane_->flows().at(one), 0U);
        const std::vector<Client> half(known.begin(), known.begin() + 50);
        EXPECT_EQ(answered_by(second, half), 50);
        dataplane_->sweep_flows();
        noted = 0;
        for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                noted += static_cast<std::size_t>(
                        std::ranges::count_if((*lines)[line].entry, [](auto e) { return e != 0; }));
        }
        EXPECT_EQ(noted, 50U);
}

}  // namespace
}  // namespace sockbroker
