// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Several sockets behind one service: how flows are spread over them, and which flows move when one comes or goes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <thread>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

struct Flow {
        oracle::Packet packet;
        std::uint16_t port = 0;
};

class Share : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open({.bindings = 64, .services = 4, .sockets = 600});
                id_ = add("web");
                std::vector<Rule> all;
                for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                        all.push_back(rule(protocol, "1.0.0.0/8", {1, 65535}, id_));
                        all.push_back(rule(protocol, "2a00::/8", {1, 65535}, id_));
                }
                rules(all);
        }

        void add_sockets(std::size_t count, Protocol protocol = Protocol::kUdp, Family family = Family::kIpv4) {
                while (sockets_.size() < count) {
                        sockets_.push_back(make_socket(protocol, family));
                        slots_.push_back(install(sockets_.back(), id_));
                }
        }

        void share(bool reuse_port = false) {
                Targets targets{.share = true, .reuse_port = reuse_port};
                const auto& [fd, cookie, protocol, family] = sockets_.front();
                targets.slots[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)] = slots_;
                const auto set = dataplane_->set_targets(id_, targets);
                ASSERT_TRUE(set) << set.error().text();
                EXPECT_EQ(dataplane_->targets(id_), targets);
        }

        void forget(std::size_t which) {
                const Slot slot = slots_[which];
                sockets_.erase(sockets_.begin() + static_cast<std::ptrdiff_t>(which));
                slots_.erase(slots_.begin() + static_cast<std::ptrdiff_t>(which));
                share();
                dataplane_->remove(slot);
        }

        std::vector<Flow> flows(std::size_t count) {
                std::vector<Flow> result(count);
                const auto& [fd, cookie, protocol, family] = sockets_.front();
                for (auto& [one, port] : result) {
                        one = packet(protocol, family == Family::kIpv4 ? "1.0.0.1" : "2a00::1", 80);
                        for (const std::size_t byte : {1U, 2U, 3U}) {
                                one.to.bytes.at(byte) = static_cast<std::uint8_t>(random_());
                                one.from.bytes.at(byte) = static_cast<std::uint8_t>(random_());
                        }
                        one.port = static_cast<std::uint16_t>(1 + random_() % 65535);
                        port = static_cast<std::uint16_t>(1024 + random_() % 60000);
                }
                return result;
        }

        // Cookies of the sockets that the flows go to.
        [[nodiscard]] std::vector<std::uint64_t> answers(const std::vector<Flow>& all) const {
                std::vector<std::uint64_t> result;
                for (const auto& [one, port] : all) {
                        result.push_back(run(program_.get(), one, 1, port).cookie);
                }
                return result;
        }

        // The chi-square of these counts over the sockets that were given, as a distance in standard deviations
        // (Wilson and Hilferty 1931). Far above 0: not even.
        static double unevenness(const std::vector<std::uint64_t>& got, const std::vector<std::uint64_t>& cookies) {
                const double expected = static_cast<double>(got.size()) / static_cast<double>(cookies.size());
                double chi_square = 0;
                for (const auto cookie : cookies) {
                        const double off = static_cast<double>(std::ranges::count(got, cookie)) - expected;
                        chi_square += off * off / expected;
                }
                const double freedom = static_cast<double>(cookies.size()) - 1;
                const double spread = 2 / (9 * freedom);
                return (std::cbrt(chi_square / freedom) - (1 - spread)) / std::sqrt(spread);
        }

        [[nodiscard]] std::vector<std::uint64_t> cookies() const {
                std::vector<std::uint64_t> result;
                std::ranges::transform(sockets_, std::back_inserter(result), &TestSocket::cookie);
                return result;
        }

        ServiceId id_ = 0;
        std::vector<TestSocket> sockets_;
        std::vector<Slot> slots_;
        std::mt19937 random_{20240607};
};

constexpr double kUneven = 4.5;  // standard deviations: once in 300,000

TEST_F(Share, spreads_flows_evenly_by_chi_square_over_2_to_256_sockets) {
        for (const std::size_t count : {2U, 3U, 4U, 5U, 16U, 47U, 256U}) {
                add_sockets(count);
                share();
                const auto got = answers(flows(20000));
                EXPECT_EQ(std::ranges::count(got, 0U), 0);
                EXPECT_LT(unevenness(got, cookies()), kUneven) << count << " sockets";
        }
}

TEST_F(Share, spreads_each_protocol_and_family_and_one_client_s_ports) {
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        sockets_.clear();
                        slots_.clear();
                        add_sockets(7, protocol, family);
                        share();
                        EXPECT_LT(unevenness(answers(flows(20000)), cookies()), kUneven);
                        auto one_client = flows(20000);
                        std::uint16_t port = 1024;
                        for (auto& flow : one_client) {
                                flow = {one_client[0].packet, port++};
                        }
                        EXPECT_LT(unevenness(answers(one_client), cookies()), kUneven) << "consecutive client ports";
                        for (auto& flow : one_client) {
                                flow = {one_client[0].packet, 53};
                                flow.packet.port = port++;
                        }
                        EXPECT_LT(unevenness(answers(one_client), cookies()), kUneven) << "consecutive server ports";
                }
        }
}

TEST_F(Share, keeps_every_flow_where_it_is_but_those_of_a_socket_that_goes) {
        for (const std::size_t count : {4U, 40U}) {  // in the record itself, and in a chain
                add_sockets(count);
                share();
                const auto all = flows(10000);
                const auto before = answers(all);
                const std::uint64_t gone = sockets_[2].cookie;
                sockets_[2].fd.reset();
                const auto meanwhile = answers(all);
                forget(2);
                const auto after = answers(all);
                EXPECT_EQ(meanwhile, after)
                        << "nothing moves twice: neither when it dies nor when the broker tidies up";
                std::vector<std::uint64_t> moved;
                for (std::size_t i = 0; i < all.size(); i++) {
                        EXPECT_TRUE(before[i] == gone || before[i] == after[i]);
                        if (before[i] == gone) {
                                moved.push_back(after[i]);
                        }
                }
                EXPECT_FALSE(moved.empty());
                EXPECT_LT(unevenness(moved, cookies()), kUneven) << "the flows of the dead are spread too";
        }
}

TEST_F(Share, moves_to_a_socket_that_comes_its_share_of_flows_and_no_other) {
        add_sockets(9);
        share();
        const auto all = flows(20000);
        const auto before = answers(all);
        add_sockets(10);
        share();
        const auto after = answers(all);
        std::size_t moved = 0;
        for (std::size_t i = 0; i < all.size(); i++) {
                moved += before[i] != after[i];
                EXPECT_TRUE(before[i] == after[i] || after[i] == sockets_.back().cookie);
        }
        const double expected = 20000.0 / 10;
        EXPECT_NEAR(static_cast<double>(moved), expected, 5 * std::sqrt(expected)) << "one flow in ten";
}

TEST_F(Share, serves_as_long_as_one_of_256_lives) {
        add_sockets(256);
        share();
        const std::uint64_t last = sockets_[200].cookie;
        for (std::size_t i = 0; i < sockets_.size(); i++) {
                if (i != 200) {
                        sockets_[i].fd.reset();
                }
        }
        const auto got = answers(flows(2000));
        EXPECT_EQ(std::ranges::count(got, last), 2000);
        sockets_[200].fd.reset();
        const Reply none = run(program_.get(), flows(1)[0].packet);
        EXPECT_EQ(none.cookie, 0U);
        EXPECT_FALSE(none.passed) << "refused";
}

TEST_F(Share, is_taken_up_by_the_next_broker_with_every_flow_in_its_place) {
        add_sockets(100);
        share(true);
        const auto all = flows(2000);
        const auto before = answers(all);
        const Targets targets = dataplane_->targets(id_);
        open();
        EXPECT_EQ(dataplane_->targets(id_), targets);
        EXPECT_EQ(answers(all), before);
}

TEST_F(Share, gives_its_records_back) {
        add_sockets(100);
        for (int i = 0; i < 1000; i++) {  // eight records each time; there are some 1,300
                share();
                ASSERT_TRUE(dataplane_->set_targets(id_, Targets{}));
        }
}

TEST_F(Share, of_more_than_256_sockets_or_of_a_reserve_deeper_than_four_is_refused) {
        add_sockets(257);
        Targets targets{.share = true};
        targets.slots[1][0] = slots_;
        EXPECT_FALSE(dataplane_->set_targets(id_, targets));
        targets.share = false;
        targets.slots[1][0].resize(5);
        EXPECT_FALSE(dataplane_->set_targets(id_, targets));
        EXPECT_EQ(dataplane_->targets(id_), Targets{}) << "nothing has changed";
}

TEST_F(Share, a_change_between_sharing_and_newest_first_is_one_switch) {
        add_sockets(30);
        Targets sharing{.share = true};
        sharing.slots[1][0] = slots_;
        Targets newest;
        newest.slots[1][0] = {slots_[0], slots_[1]};
        ASSERT_TRUE(dataplane_->set_targets(id_, newest));
        std::atomic<bool> stop = false;
        std::atomic<unsigned> lost = 0;
        std::thread traffic([&, all = flows(64)] {
                while (!stop) {
                        for (const auto& [one, port] : all) {
                                lost += run(program_.get(), one, 1, port).cookie == 0;
                        }
                }
        });
        for (int i = 0; i < 2000; i++) {
                ASSERT_TRUE(dataplane_->set_targets(id_, i % 2 == 0 ? sharing : newest));
        }
        stop = true;
        traffic.join();
        EXPECT_EQ(lost, 0U);
}

}  // namespace
}  // namespace sockbroker
