// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpFlows=stay: which flows go on to the socket that has served them, and that a slot which is taken anew never gets a
// flow of the socket that was there.
#include <atomic>
#include <thread>

#include "tests/netns/dataplane_flows_fixture.h"

namespace sockbroker {
namespace {

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

TEST_F(Flows, stay_whatever_kind_of_rule_leads_to_the_service) {
        const auto plain = rule(Protocol::kUdp, "1.0.0.0/8", {443, 443}, id_);
        auto of_a_source = plain;
        of_a_source.source = *parse_prefix("0.0.0.0/1");
        auto of_the_other = plain;
        of_the_other.source = *parse_prefix("128.0.0.0/1");
        std::vector<Rule> of_many_ports{plain};
        for (std::uint16_t port = 1000; port < 1100; port += 2) {
                of_many_ports.push_back(rule(Protocol::kUdp, "1.0.0.0/8", {port, port}, other_));
        }
        const auto longer = rule(Protocol::kUdp, "1.128.0.0/9", {80, 80}, other_);
        const std::vector<std::vector<Rule>> kinds{
                {plain}, {of_a_source, of_the_other}, of_many_ports, {longer, plain}};
        for (std::size_t kind = 0; kind < kinds.size(); kind++) {
                rules(kinds[kind]);
                const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
                const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
                const Slot one = install(first, id_);
                serve_by({one}, Family::kIpv4);
                const auto known = clients(1000);
                const auto before = dataplane_->counters(id_);
                EXPECT_EQ(answered_by(first, known), 1000) << kind;
                const Slot two = install(second, id_);
                serve_by({two, one}, Family::kIpv4);
                EXPECT_EQ(answered_by(first, known), 1000) << kind;
                EXPECT_EQ(answered_by(second, clients(1000)), 1000) << kind;
                const auto after = dataplane_->counters(id_);
                EXPECT_EQ(after.lookups - before.lookups, 3000U) << "each is counted once";
                EXPECT_EQ(after.assigned - before.assigned, 3000U) << kind;
                dataplane_->remove(one);
                dataplane_->remove(two);
        }
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
        std::ptrdiff_t unknown = 0;
        for (int i = 0; i < 20; i++) {  // 1.2 million, twice what the table holds, each once
                unknown += answered_by(second, clients(60000));
        }
        // One that has the tag of a session in its set, of 25 bits, is taken for it: so it is in one run of a hundred.
        EXPECT_GE(unknown, 1'200'000 - 2);
        EXPECT_EQ(answered_by(first, sessions), 1000);
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

        EXPECT_EQ(noted(0, SB_FLOW_LINES), 100);
        age(SB_FLOW_IDLE + 1);
        serve_by({install(second, id_), one}, Family::kIpv4);
        EXPECT_EQ(dataplane_->flows().at(one), 0U);
        const std::vector<Client> half(known.begin(), known.begin() + 50);
        EXPECT_EQ(answered_by(second, half), 50);
        dataplane_->sweep_flows();
        EXPECT_EQ(noted(0, SB_FLOW_LINES), 50);
}

TEST_F(Flows, stand_near_while_they_are_few) {
        const auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
        serve_by({install(socket, id_)}, Family::kIpv4);
        const auto few = clients(10000);
        EXPECT_EQ(answered_by(socket, few), 10000);
        EXPECT_LT(noted(SB_FLOW_NEAR, SB_FLOW_LINES), 50);
        EXPECT_EQ(noted(0, SB_FLOW_LINES), 10000);
}

TEST_F(Flows, come_near_when_there_is_a_place) {
        const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(first, id_);
        serve_by({one}, Family::kIpv4);
        flood(std::size_t{20} * SB_FLOW_NEAR, 2);
        const auto before = noted(SB_FLOW_NEAR, SB_FLOW_LINES);
        const auto known = clients(1000);
        EXPECT_EQ(answered_by(first, known), 1000);
        EXPECT_EQ(answered_by(first, known), 1000);
        const auto far = noted(SB_FLOW_NEAR, SB_FLOW_LINES) - before;
        EXPECT_GT(far, 950);

        // The flood is gone, and they speak again.
        forget(SB_FLOW_NEAR);
        age(SB_FLOW_REFRESH);
        serve_by({install(second, id_), one}, Family::kIpv4);
        EXPECT_EQ(answered_by(first, known), far);
        EXPECT_EQ(noted(SB_FLOW_NEAR, SB_FLOW_LINES), before) << "and none is there twice";
        EXPECT_EQ(noted(0, SB_FLOW_NEAR), 1000);
        EXPECT_EQ(dataplane_->flows().at(one), static_cast<std::uint32_t>(before + far)) << "sessions all the same";
}

}  // namespace
}  // namespace sockbroker
