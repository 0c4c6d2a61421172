// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Limits that are raised: larger maps take the place of the pinned ones, and live sockets come along.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include <fmt/format.h>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

constexpr Capacity kLittle{.bindings = 10, .services = 2, .sockets = 3};
constexpr Capacity kMuch{.bindings = 3000, .services = 40, .sockets = 200};

class Growth : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open(kLittle);
                id_ = add("web");
                const ServiceId other = add("dns");
                rules({rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, id_),
                       rule(Protocol::kUdp, "2a00::/16", {53, 53}, other, Absent::kPass)});
                rules({rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, id_),
                       rule(Protocol::kUdp, "2a00::/32", {53, 53}, other)});  // in the other generation
                serve(id_, web_);
                serve(other, dns_);
        }

        void expect_service() const {
                EXPECT_EQ(ask(packet(Protocol::kTcp, "1.0.0.9", 80)).cookie, web_.cookie);
                EXPECT_EQ(ask(packet(Protocol::kUdp, "2a00::9", 53)).cookie, dns_.cookie);
                EXPECT_TRUE(ask(packet(Protocol::kUdp, "2a00:1::9", 53)).passed);
        }

        [[nodiscard]] std::vector<std::string> pins() const {
                std::vector<std::string> names;
                for (const auto& entry : std::filesystem::directory_iterator(pins_)) {
                        names.push_back(entry.path().filename());
                }
                std::ranges::sort(names);
                return names;
        }

        TestSocket web_ = make_socket(Protocol::kTcp, Family::kIpv4);
        TestSocket dns_ = make_socket(Protocol::kUdp, Family::kIpv6);
        ServiceId id_ = 0;
};

TEST_F(Growth, takes_live_sockets_rules_owners_and_counters_along) {
        expect_service();
        const auto registrants = dataplane_->registrants();
        const auto names = pins();
        open(kMuch);
        EXPECT_EQ(dataplane_->capacity(), kMuch);
        EXPECT_TRUE(dataplane_->taken_up());
        EXPECT_EQ(dataplane_->counters(id_).assigned, 1U);
        expect_service();
        EXPECT_EQ(pins(), names) << "nothing is left beside them";
        ASSERT_EQ(dataplane_->registrants().size(), registrants.size());
        for (std::size_t i = 0; i < registrants.size(); i++) {
                EXPECT_EQ(dataplane_->registrants()[i].first, registrants[i].first);
                EXPECT_EQ(dataplane_->registrants()[i].second.cookie, registrants[i].second.cookie);
        }

        // And there is room now.
        std::vector<TestSocket> sockets;
        for (int i = 0; i < 190; i++) {
                sockets.push_back(make_socket(Protocol::kTcp, Family::kIpv4));
                EXPECT_NE(install(sockets.back(), id_), 0U);
        }
        for (int i = 0; i < 30; i++) {
                EXPECT_NE(add("s" + std::to_string(i)), 0U);
        }
        std::vector<Rule> all;
        for (int i = 0; i < 2500; i++) {
                all.push_back(rule(Protocol::kTcp, fmt::format("1.{}.{}.0/24", i / 250, i % 250), {80, 80}, id_));
        }
        rules(all);
        EXPECT_EQ(ask(packet(Protocol::kTcp, "1.9.249.1", 80)).cookie, web_.cookie);
}

TEST_F(Growth, of_one_limit_leaves_the_others) {
        open({.bindings = 5, .services = 20, .sockets = 1});
        EXPECT_EQ(dataplane_->capacity(), (Capacity{.bindings = 10, .services = 20, .sockets = 3}));
        expect_service();
}

TEST_F(Growth, passes_over_a_socket_that_was_shut_down) {
        shutdown(web_.fd.get(), SHUT_RD);
        open(kMuch);
        EXPECT_EQ(dataplane_->capacity(), kMuch);
        EXPECT_EQ(dataplane_->not_grown(), "");
        EXPECT_EQ(ask(packet(Protocol::kUdp, "2a00::9", 53)).cookie, dns_.cookie);
        EXPECT_FALSE(ask(packet(Protocol::kTcp, "1.0.0.9", 80)).passed);
}

TEST_F(Growth, that_fails_leaves_what_serves_and_says_why) {
        open({.bindings = 10, .services = 2, .sockets = 1U << 30});
        EXPECT_EQ(dataplane_->capacity(), kLittle);
        EXPECT_NE(dataplane_->not_grown().find("MaxSockets="), std::string::npos) << dataplane_->not_grown();
        expect_service();
}

// Killed at random moments from the load of its program on: before, between and after the steps that change anything.
TEST_F(Growth, cut_off_at_any_moment_is_finished_or_undone_by_the_next_start) {
        std::mt19937 random{std::random_device{}()};
        const auto names = pins();
        unsigned finished = 0;
        std::int64_t whole_usec = 0;
        constexpr unsigned kRounds = 6;
        for (unsigned round = 0; round <= kRounds; round++) {
                const Capacity before = dataplane_->capacity();
                const Capacity wanted{.bindings = 20 + round * 10, .services = 3 + round, .sockets = 4 + round};
                const auto start = std::chrono::steady_clock::now();
                const pid_t child = fork();
                ASSERT_GE(child, 0);
                if (child == 0) {
                        (void)Dataplane::open(pins_, wanted);
                        _exit(0);
                }
                if (round > 0) {  // the first one shows how long it takes
                        usleep(static_cast<useconds_t>(whole_usec / 2 + random() % (whole_usec * 3 / 4)));
                        kill(child, SIGKILL);
                }
                ASSERT_EQ(waitpid(child, nullptr, 0), child);
                if (round == 0) {
                        using namespace std::chrono;
                        whole_usec = duration_cast<microseconds>(steady_clock::now() - start).count();
                }
                open(before);  // asks for nothing, so that what it finds is what the killed one left
                EXPECT_EQ(pins(), names);
                EXPECT_TRUE(dataplane_->capacity() == before || dataplane_->capacity() == wanted);
                finished += dataplane_->capacity() == wanted;
                expect_service();
                EXPECT_EQ(dataplane_->registrants().size(), 2U);
        }
        std::printf("%u of %u finished\n", finished, kRounds + 1);
}

}  // namespace
}  // namespace sockbroker
