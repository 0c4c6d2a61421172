// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Clients of a service with UdpFlows=stay, a flood beside them, and the table in which their flows stand.
#pragma once

#include <algorithm>
#include <random>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/mapping.h"
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {

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

        void forget_all() { forget(SB_FLOW_LINES); }

        void forget(std::uint32_t first_lines) {
                const auto map = pinned("flows");
                const auto lines = Mapping<sb_flow_line>::create(map.get(), SB_FLOW_LINES, "flows");
                ASSERT_TRUE(lines);
                for (std::uint32_t line = 0; line < first_lines; line++) {
                        (*lines)[line] = {};
                }
        }

        // Entries in lines from `from` to before `to`.
        [[nodiscard]] std::ptrdiff_t noted(std::uint32_t from, std::uint32_t to) const {
                const auto map = pinned("flows");
                const auto lines = Mapping<sb_flow_line>::create(map.get(), SB_FLOW_LINES, "flows");
                EXPECT_TRUE(lines);
                std::ptrdiff_t result = 0;
                for (std::uint32_t line = from; lines && line < to; line++) {
                        result += std::ranges::count_if((*lines)[line].entry, [](auto entry) { return entry != 0; });
                }
                return result;
        }

        // As if all had come so many units of time earlier.
        void age(std::uint32_t units) {
                const auto map = pinned("flows");
                const auto lines = Mapping<sb_flow_line>::create(map.get(), SB_FLOW_LINES, "flows");
                ASSERT_TRUE(lines);
                for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                        for (auto& entry : (*lines)[line].entry) {
                                if (entry != 0) {
                                        const auto time = (entry >> SB_FLOW_TIME_SHIFT) - units;
                                        entry &= ~(std::uint64_t{SB_FLOW_TIMES} << SB_FLOW_TIME_SHIFT);
                                        entry |= (time & SB_FLOW_TIMES) << SB_FLOW_TIME_SHIFT;
                                }
                        }
                }
        }

        ServiceId id_ = 0;
        ServiceId other_ = 0;
        std::mt19937 random_{20261128};
};

}  // namespace sockbroker
