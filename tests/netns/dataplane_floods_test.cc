// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpFlows=stay beside floods and very many flows: which flows lose their place in the table to others.
#include <array>
#include <cmath>
#include <iostream>

#include "tests/netns/dataplane_flows_fixture.h"

namespace sockbroker {
namespace {

constexpr std::size_t kNearPlaces = std::size_t{SB_FLOW_NEAR} * SB_FLOW_WAYS;

// That fewer than all ways of a far set are taken, where so many flows fall on all sets by chance (Poisson), and the
// near sets are full of them.
double share_with_a_place(double flows) {
        const double mean = (flows - double{kNearPlaces}) / double{SB_FLOW_LINES - SB_FLOW_NEAR};
        double term = std::exp(-mean);
        double sum = 0;
        for (int taken = 0; taken < SB_FLOW_WAYS; taken++) {
                sum += term;
                term *= mean / (taken + 1);
        }
        return sum;
}

TEST_F(Flows, have_a_place_each_far_beyond_the_near_sets) {
        const auto first = make_socket(Protocol::kUdp, Family::kIpv4);
        const auto second = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot one = install(first, id_);
        serve_by({one}, Family::kIpv4);
        const auto known = clients(3 * kNearPlaces);
        const auto all = static_cast<std::ptrdiff_t>(known.size());
        EXPECT_EQ(answered_by(first, known), all);
        serve_by({install(second, id_), one}, Family::kIpv4);
        EXPECT_NEAR(static_cast<double>(answered_by(first, known)),
                    static_cast<double>(all) * share_with_a_place(static_cast<double>(all)), 20);
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

TEST_F(FlowsBesideFloods, that_are_unknown_displace_nobody_from_a_near_set) {
        serve_anew();
        const auto begun = clients(1000);
        EXPECT_EQ(answered_by(older_, begun), 1000);
        flood(kFloods.back(), 1);
        hand_over();
        EXPECT_EQ(answered_by(older_, begun), 1000);
}

TEST_F(FlowsBesideFloods, that_are_unknown_displace_by_chance_from_a_far_set_those_that_have_spoken_once) {
        constexpr std::size_t kBefore = 2 * kNearPlaces;
        for (const auto invented : kFloods) {
                serve_anew();
                flood(kBefore, 2);
                const auto begun = clients(1000);
                EXPECT_EQ(answered_by(older_, begun), 1000);
                flood(invented, 1);
                hand_over();
                const auto stayed = answered_by(older_, begun);
                std::cout << invented
                          << " datagrams of invented sources between the first and the second of a session: "
                          << 1000 - stayed << " of 1,000 lost\n";
                EXPECT_NEAR(static_cast<double>(stayed),
                            1000 * share_with_a_place(static_cast<double>(kBefore + invented)), 60);
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

}  // namespace
}  // namespace sockbroker
