// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Counters of single bindings, in the kernel: each counts what its own rule decided, stays over reloads and restarts as
// long as its binding does, and starts anew when it is given to another.
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

class CountersTest : public DataplaneTest {
protected:
        static constexpr Capacity kFew{.bindings = 100, .services = 4, .sockets = 4, .accounted = 4};

        // Rules of UDP port 53 of these hosts, each counted for itself; a host is its own identity.
        void counted_rules(ServiceId service, const std::vector<std::uint64_t>& hosts,
                           Absent absent = Absent::kRefuse) {
                const auto counters = dataplane_->assign_counters(hosts);
                ASSERT_TRUE(counters) << counters.error().text();
                std::vector<Rule> set;
                for (std::size_t i = 0; i < hosts.size(); i++) {
                        set.push_back(rule(Protocol::kUdp, address(hosts[i]) + "/32", {53, 53}, service, absent));
                        set.back().counter = (*counters)[i];
                }
                rules(set);
                dataplane_->keep_counters(*counters);
        }

        static std::string address(std::uint64_t host) { return "192.0.2." + std::to_string(host); }

        void ask_times(std::uint64_t host, int times) {
                (void)ask_often(packet(Protocol::kUdp, address(host), 53), times);
        }

        [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> counts(std::uint64_t host) const {
                const auto counters = dataplane_->binding_counters(host);
                return {counters.lookups, counters.no_socket};
        }

        using Counts = std::pair<std::uint64_t, std::uint64_t>;
};

TEST_F(CountersTest, each_binding_counts_what_it_decided) {
        open(kFew);
        const ServiceId id = add("dns");
        counted_rules(id, {1, 2});
        ask_times(1, 5);
        EXPECT_EQ(counts(1), Counts(5, 5)) << "there is no socket yet";
        const auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
        serve(id, socket);
        ask_times(1, 7);
        ask_times(2, 3);
        EXPECT_EQ(counts(1), Counts(12, 5));
        EXPECT_EQ(counts(2), Counts(3, 0));
        EXPECT_EQ(counts(3), Counts(0, 0)) << "nobody's";
        EXPECT_EQ(dataplane_->counters(id).lookups, 15U) << "the service counts all of them as well";
        EXPECT_EQ(dataplane_->counters(id).assigned, 10U);
}

TEST_F(CountersTest, counters_stay_as_long_as_their_binding) {
        open(kFew);
        const ServiceId id = add("dns");
        counted_rules(id, {1, 2, 3});
        for (const std::uint64_t host : {1, 2, 3}) {
                ask_times(host, static_cast<int>(10 * host));
        }
        counted_rules(id, {3, 1, 4});
        EXPECT_EQ(counts(1), Counts(10, 10)) << "a reload changes nothing";
        EXPECT_EQ(counts(3), Counts(30, 30)) << "whatever the order";
        EXPECT_EQ(counts(4), Counts(0, 0));
        ask_times(3, 1);
        EXPECT_EQ(counts(3), Counts(31, 31));

        open(kFew);  // a broker that was killed and started again
        EXPECT_EQ(counts(3), Counts(31, 31));
        ask_times(3, 1);
        counted_rules(id, {1, 3, 4});
        EXPECT_EQ(counts(3), Counts(32, 32)) << "what was counted meanwhile, too";
}

TEST_F(CountersTest, a_counter_of_another_binding_starts_from_nothing) {
        open(kFew);
        const ServiceId id = add("dns");
        for (std::uint64_t round = 0; round < 20; round++) {  // all are exchanged each time: every place is used again
                std::vector<std::uint64_t> hosts;
                for (std::uint64_t i = 1; i <= 4; i++) {
                        hosts.push_back(round * 4 + i);
                }
                counted_rules(id, hosts);
                for (const auto host : hosts) {
                        EXPECT_EQ(counts(host), Counts(0, 0)) << "round " << round;
                        ask_times(host, 3);
                        EXPECT_EQ(counts(host), Counts(3, 3)) << "round " << round;
                }
                if (round % 3 == 0) {  // a restart finds no more of them than are in use
                        open(kFew);
                }
        }
}

TEST_F(CountersTest, more_than_there_may_be_are_refused_and_the_old_ones_go_on) {
        open(kFew);
        const ServiceId id = add("dns");
        counted_rules(id, {1, 2, 3, 4});
        ask_times(1, 2);
        const std::vector<std::uint64_t> many{5, 6, 7, 8, 9};
        const auto refused = dataplane_->assign_counters(many);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().errnum, ENOSPC);
        EXPECT_NE(refused.error().message.find("MaxAccountedBindings="), std::string::npos);
        ask_times(1, 2);
        EXPECT_EQ(counts(1), Counts(4, 4));
}

TEST_F(CountersTest, more_of_them_after_a_restart_with_a_larger_limit) {
        open(kFew);
        const ServiceId id = add("dns");
        counted_rules(id, {1, 2, 3, 4});
        ask_times(2, 5);
        Capacity more = kFew;
        more.accounted = 6;
        open(more);
        EXPECT_EQ(dataplane_->capacity().accounted, 6U);
        ask_times(2, 1);
        EXPECT_EQ(counts(2), Counts(6, 6));
        counted_rules(id, {6, 5, 4, 3, 2, 1});
        ask_times(6, 2);
        EXPECT_EQ(counts(2), Counts(6, 6));
        EXPECT_EQ(counts(6), Counts(2, 2));
        open(kFew);
        EXPECT_EQ(dataplane_->capacity().accounted, 6U) << "a smaller limit leaves the maps as they are";
}

TEST_F(CountersTest, counted_rules_hand_on_like_others) {
        open(kFew);
        const ServiceId canary = add("canary"), stable = add("stable");
        const auto socket = make_socket(Protocol::kUdp, Family::kIpv6);
        serve(stable, socket);
        const std::vector<std::uint64_t> bindings{11, 12};
        const auto counters = dataplane_->assign_counters(bindings);
        ASSERT_TRUE(counters);
        std::vector<Rule> set{rule(Protocol::kUdp, "2001:db8::/64", {53, 53}, canary, Absent::kNext),
                              rule(Protocol::kUdp, "2001:db8::/64", {53, 53}, stable)};
        set[0].source = *parse_prefix("2001:db8:77::/48");
        set[0].counter = (*counters)[0];
        set[1].counter = (*counters)[1];
        rules(set);
        auto near = packet(Protocol::kUdp, "2001:db8::1", 53);
        near.from = *parse_address("2001:db8:77::5");
        EXPECT_EQ(ask(near).cookie, socket.cookie);
        EXPECT_EQ(ask(packet(Protocol::kUdp, "2001:db8::1", 53)).cookie, socket.cookie);
        EXPECT_EQ(counts(11), Counts(1, 1));
        EXPECT_EQ(counts(12), Counts(2, 0));
}

}  // namespace
}  // namespace sockbroker
