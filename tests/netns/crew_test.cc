// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The crew with honest peers: what comes back of a message, where its sockets are, and what goes with whom.
#include "tests/netns/crew_fixture.h"

namespace sockbroker::hands {
namespace {

constexpr uid_t kHonest = 61001;

std::uint64_t cookie_of(int fd) {
        std::uint64_t cookie = 0;
        socklen_t size = sizeof cookie;
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
        return cookie;
}

TEST(Crew, SocketsOfAMessageAreInTheStagingMapWithTheirFacts) {
        MiniCore core;
        const auto tcp = test::listener();
        const auto udp = test::udp_bound();
        Taken taken;
        std::vector<std::uint64_t> staged;
        core.on_taken = [&](const Taken& one) {
                taken = one;
                for (std::uint32_t i = 0; i < one.found.size(); i++) {
                        const std::uint32_t slot = one.staging + i;
                        std::uint64_t cookie = 0;
                        bpf_map_lookup_elem(core.staging(), &slot, &cookie);
                        staged.push_back(cookie);
                }
        };
        const pid_t peer = spawn(kHonest, {tcp.get(), udp.get()}, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                return ask(connection.get(), "admit", {tcp.get(), udp.get(), tcp.get()}) == "done" ? 0 : 1;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        ASSERT_EQ(taken.found.size(), 3U);
        EXPECT_EQ(taken.found[0].facts.cookie, cookie_of(tcp.get()));
        EXPECT_TRUE(taken.found[0].facts.listening);
        EXPECT_EQ(taken.found[0].staging, Staging::kOffered);
        EXPECT_EQ(taken.found[1].facts.cookie, cookie_of(udp.get()));
        EXPECT_EQ(taken.found[1].staging, Staging::kOffered);
        EXPECT_EQ(taken.found[2].staging, Staging::kAgain);
        EXPECT_EQ(staged[0], cookie_of(tcp.get()));
        EXPECT_EQ(staged[1], cookie_of(udp.get()));
        EXPECT_TRUE(core.run_until([&] { return core.connections() == 0; }));
}

}  // namespace
}  // namespace sockbroker::hands
