// SPDX-License-Identifier: LGPL-2.1-or-later
//
// explain() says what the specification says, and leaves no trace. dataplane_packets_test.cc: and what real packets do.
#include <netinet/in.h>

#include <cstdio>
#include <random>
#include <set>

#include "tests/netns/dataplane_explained.h"

namespace sockbroker {
namespace {

using oracle::Packet;
using oracle::Verdict;

// Interfaces too, which no test run of the attached program can ask about.
TEST_F(ExplainTest, s15_explain_says_what_the_specification_says_of_interfaces_too) {
        open({.bindings = 2000, .services = 16, .sockets = 32});
        std::vector<TestSocket> sockets;
        std::map<std::uint64_t, ServiceId> owner;
        for (unsigned i = 1; i <= 8; i++) {
                const ServiceId id = add("service-" + std::to_string(i));
                for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                        for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                                if (i == 8) {
                                        continue;
                                }
                                sockets.push_back(make_socket(protocol, family));
                                serve(id, sockets.back());
                                owner[sockets.back().cookie] = id;
                        }
                }
        }
        for (unsigned seed = 1; seed <= 20; seed++) {
                oracle::Generator generator(seed);
                const auto set = generator.rules({.rules = 200, .services = 8, .conditions = 0.5, .next = 0.4});
                rules(set);
                for (int i = 0; i < 500; i++) {
                        const auto packet = generator.packet(set);
                        const auto want = oracle::ask(set, packet, [](ServiceId id) { return id != 8; });
                        const auto got = explain(look_up(packet));
                        ASSERT_EQ(verdict_of(got), want.verdict) << "seed " << seed << ", packet " << i;
                        if (got.cookie != 0) {
                                ASSERT_EQ(owner[got.cookie], want.service);
                        }
                        // The steps are those of the walk: the last one decides, and all before it had no socket.
                        ASSERT_EQ(got.steps.empty(), want.verdict == Verdict::kPass && got.steps.empty());
                        if (want.service != 0) {
                                ASSERT_FALSE(got.steps.empty());
                                ASSERT_EQ(got.steps.back().service, want.service);
                        }
                        for (std::size_t n = 0; n + 1 < got.steps.size(); n++) {
                                ASSERT_FALSE(got.steps[n].delivered);
                        }
                }
        }
}

TEST_F(ExplainTest, the_last_of_more_steps_than_are_told_is_the_one_that_decides) {
        constexpr unsigned kNested = 120;
        open({.bindings = 2 * kNested, .services = kNested, .sockets = 2});
        std::vector<Rule> nested;
        for (unsigned i = 0; i < kNested; i++) {
                nested.push_back(rule(Protocol::kTcp, "8000::/" + std::to_string(kNested - i), {80, 80},
                                      add("n" + std::to_string(i))));
                nested.back().absent = Absent::kNext;
        }
        rules(nested);
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv6);
        Targets targets;
        targets.slots[0][1] = {install(socket, nested[0].service)};
        for (const unsigned at : {0U, 62U, 63U, 64U, 65U, kNested - 1}) {
                const auto serving = nested[at].service;
                ASSERT_TRUE(dataplane_->set_targets(serving, targets));
                const auto got = explain(look_up(packet(Protocol::kTcp, "8000::1", 80)));
                ASSERT_TRUE(dataplane_->set_targets(serving, {}));
                EXPECT_EQ(got.cookie, socket.cookie);
                EXPECT_EQ(got.matched(), at + 1);
                ASSERT_EQ(got.steps.size(), std::min(at + 1, 64U));
                for (std::size_t n = 0; n + 1 < got.steps.size(); n++) {
                        EXPECT_EQ(got.steps[n].at, n);
                        EXPECT_EQ(got.steps[n].service, nested[n].service);
                        EXPECT_FALSE(got.steps[n].delivered);
                }
                EXPECT_EQ(got.steps.back().service, serving);
                EXPECT_TRUE(got.steps.back().delivered);
        }
}

TEST_F(ExplainTest, explain_counts_nothing) {
        open();
        const ServiceId id = add("web"), absent = add("absent");
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        serve(id, socket);
        auto counted = rule(Protocol::kTcp, "10.0.0.0/8", {80, 80}, id);
        const std::uint64_t identity[] = {77};
        const auto counter = dataplane_->assign_counters(identity);
        ASSERT_TRUE(counter);
        counted.counter = counter->front();
        rules({counted, rule(Protocol::kTcp, "10.0.0.0/8", {81, 81}, absent)});
        for (const std::uint16_t port : {80, 81, 82}) {
                (void)explain(look_up(packet(Protocol::kTcp, "10.0.0.1", port)));
        }
        EXPECT_EQ(dataplane_->counters(id).lookups, 0U);
        EXPECT_EQ(dataplane_->counters(absent).lookups, 0U);
        EXPECT_EQ(dataplane_->binding_counters(77).lookups, 0U);
        EXPECT_TRUE(ask(packet(Protocol::kTcp, "10.0.0.1", 80)).passed);
        EXPECT_EQ(dataplane_->counters(id).lookups, 1U) << "the attached program counts";
        EXPECT_EQ(dataplane_->binding_counters(77).lookups, 1U);
}

TEST_F(ExplainTest, a_socket_that_does_not_take_the_packet_is_told_with_its_cause) {
        open();
        const ServiceId id = add("web");
        auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        Targets targets;
        const Slot slot = install(socket, id);
        targets.slots[0][0] = {slot};
        targets.slots[0][1] = {slot};  // an IPv4 socket cannot take IPv6
        ASSERT_TRUE(dataplane_->set_targets(id, targets));
        rules({rule(Protocol::kTcp, "10.0.0.0/8", {80, 80}, id), rule(Protocol::kTcp, "2a00::/16", {80, 80}, id)});
        const auto wrong = explain(look_up(packet(Protocol::kTcp, "2a00::1", 80)));
        ASSERT_EQ(wrong.steps.size(), 1U);
        EXPECT_TRUE(wrong.refused);
        EXPECT_TRUE(wrong.steps[0].wrong_family);
        ASSERT_EQ(shutdown(socket.fd.get(), SHUT_RD), 0);
        const auto shut = explain(look_up(packet(Protocol::kTcp, "10.0.0.1", 80)));
        ASSERT_EQ(shut.steps.size(), 1U);
        EXPECT_TRUE(shut.refused);
        EXPECT_TRUE(shut.steps[0].wrong_state);
}

// Where policy leaves the choice within a SO_REUSEPORT group to the kernel, a test run would tell no cookie.
TEST_F(ExplainTest, a_choice_that_is_left_to_the_kernel_is_told) {
        open();
        const ServiceId id = add("web");
        TestSocket socket{.fd = OwnedFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
        const int on = 1;
        ASSERT_EQ(setsockopt(socket.fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
        const sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        ASSERT_EQ(bind(socket.fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        ASSERT_EQ(listen(socket.fd.get(), 8), 0);
        socklen_t length = sizeof socket.cookie;
        ASSERT_EQ(getsockopt(socket.fd.get(), SOL_SOCKET, SO_COOKIE, &socket.cookie, &length), 0);
        Targets targets{.reuse_port = true};
        targets.slots[0][0] = {install(socket, id)};
        ASSERT_TRUE(dataplane_->set_targets(id, targets));
        rules({rule(Protocol::kTcp, "10.0.0.0/8", {80, 80}, id)});
        const auto explained = explain(look_up(packet(Protocol::kTcp, "10.0.0.1", 80)));
        EXPECT_EQ(explained.cookie, socket.cookie);
        ASSERT_EQ(explained.steps.size(), 1U);
        EXPECT_TRUE(explained.steps[0].kernel_chooses);
}

TEST_F(ExplainTest, every_program_of_a_start_is_followed_for_at_most_30000_instructions) {
        open();
        unsigned programs = 0;
        for (int fd = 3; fd < 256; fd++) {
                char what[64] = {};
                const auto path = "/proc/self/fd/" + std::to_string(fd);
                if (readlink(path.c_str(), what, sizeof what - 1) < 0 ||
                    std::string_view(what) != "anon_inode:bpf-prog") {
                        continue;
                }
                bpf_prog_info info{};
                std::uint32_t size = sizeof info;
                ASSERT_EQ(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
                std::printf("%s: %u followed\n", info.name, info.verified_insns);
                EXPECT_LE(info.verified_insns, 30000U) << info.name;
                programs++;
        }
        EXPECT_GE(programs, 4U) << "dispatch, what explains it, probe, copy";
}

}  // namespace
}  // namespace sockbroker
