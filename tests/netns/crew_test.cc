// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The crew with honest peers: what comes back of a message, where its sockets are, and what goes with whom.
#include <poll.h>

#include <array>
#include <filesystem>
#include <optional>
#include <set>

#include "tests/netns/crew_fixture.h"

namespace sockbroker::hands {
namespace {

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

// The last close(2) of a socket that stands in n entries of a sockmap takes the kernel n * n steps, in one read-side
// critical section of RCU: four seconds for 40,000.
TEST(Crew, ASocketStandsInOneEntryOfTheStagingMapForEachHand) {
        const MiniCore::Settings two{.hands = 2};
        MiniCore core(two);
        std::vector<OwnedFd> all;
        std::vector<int> fds;
        for (int i = 0; i < 8; i++) {
                all.push_back(test::listener());
                fds.push_back(all.back().get());
        }
        const int often = fds.back();
        const pid_t peer = spawn(kHonest, fds, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                // In each of eight places of a message, from the last to the first, and again.
                for (int round = 0; round < 32; round++) {
                        std::vector<int> some(fds.begin(), fds.begin() + (7 - round % 8));
                        some.push_back(often);
                        if (ask(connection.get(), "admit", some) != "done") {
                                return 1;
                        }
                }
                return 0;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        unsigned entries = 0;
        for (std::uint32_t slot = 0; slot < Crew::kStagingSlots; slot++) {
                std::uint64_t cookie = 0;
                entries += bpf_map_lookup_elem(core.staging(), &slot, &cookie) == 0 && cookie == cookie_of(often);
        }
        EXPECT_GE(entries, 1U);
        EXPECT_LE(entries, two.hands);
}

TEST(Crew, WhereOneSocketCannotBeBrokeredNoneIsOffered) {
        MiniCore core;
        const auto tcp = test::listener();
        const auto pipe = test::make_kind("pipe");
        Taken taken;
        core.on_taken = [&](const Taken& one) { taken = one; };
        const pid_t peer = spawn(kHonest, {tcp.get(), pipe[0].get()}, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                return ask(connection.get(), "admit", {tcp.get(), pipe[0].get()}) == "done" ? 0 : 1;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        ASSERT_EQ(taken.found.size(), 2U);
        EXPECT_EQ(taken.found[0].staging, Staging::kNone);
        EXPECT_EQ(taken.found[1].staging, Staging::kNone);
        EXPECT_EQ(taken.found[1].facts.domain, -1);
        const std::uint32_t slot = taken.staging;
        std::uint64_t cookie = 0;
        EXPECT_NE(bpf_map_lookup_elem(core.staging(), &slot, &cookie), 0);
}

TEST(Crew, DescriptorsOfEveryKindComeBackAsFactsAndAreClosed) {
        MiniCore core;
        std::vector<Taken> all;
        core.on_taken = [&](const Taken& one) { all.push_back(one); };
        const std::vector<std::string> kinds{"tcp-unconnected",
                                             "tcp-connected",
                                             "tcp-accepted",
                                             "tcp-shut-down",
                                             "udp-unbound",
                                             "udp-connected",
                                             "udplite-bound",
                                             "unix-stream",
                                             "netlink",
                                             "packet",
                                             "raw",
                                             "mptcp-listener",
                                             "foreign-netns-listener",
                                             "pipe",
                                             "memfd",
                                             "eventfd",
                                             "pidfd",
                                             "file",
                                             "o-path"};
        std::vector<std::vector<OwnedFd>> made;
        std::vector<int> fds;
        for (const auto& kind : kinds) {
                made.push_back(test::make_kind(kind));
                fds.push_back(made.back()[0].get());
        }
        const pid_t peer = spawn(kHonest, fds, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                for (const int fd : fds) {
                        if (ask(connection.get(), "admit", {fd}) != "done") {
                                return 1;
                        }
                }
                return ask(connection.get(), "admit", std::vector<int>(253, fds[0])) == "done" &&
                                       ask(connection.get(), std::string(5000, 'x'), fds) == "done"
                               ? 0
                               : 2;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        ASSERT_EQ(all.size(), kinds.size() + 2);
        for (std::size_t i = 0; i < kinds.size(); i++) {
                ASSERT_EQ(all[i].found.size(), 1U) << kinds[i];
                EXPECT_EQ(all[i].found[0].staging, Staging::kNone) << kinds[i];
        }
        EXPECT_EQ(all[kinds.size()].found.size(), 253U);
        EXPECT_TRUE(all.back().truncated);
        EXPECT_EQ(all.back().count, kinds.size());
}

TEST(Crew, AHandOfDisposalLooksAtNothing) {
        MiniCore core;
        const auto pipe = test::make_kind("pipe");
        Taken taken;
        core.on_taken = [&](const Taken& one) { taken = one; };
        const pid_t peer = spawn(kHonest, {pipe[0].get()}, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                return ask(connection.get(), "barrier", {pipe[0].get()}) == "done" ? 0 : 1;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        EXPECT_EQ(taken.count, 1U);
        EXPECT_TRUE(taken.found.empty());
}

TEST(Crew, NotifyIsTakenMessageByMessage) {
        MiniCore core;
        const auto tcp = test::listener();
        const pid_t peer = spawn(kHonest, {tcp.get()}, [&] {
                const auto socket = unix_socket(core.notify_path(), SOCK_DGRAM, false);
                for (int i = 0; i < 100; i++) {
                        test::must(send_bytes(socket.get(), as_bytes_of(i % 2 == 0 ? "admit" : "other"),
                                              std::array{tcp.get()}, true) == 0
                                           ? 0
                                           : -1,
                                   "send");
                }
                return 0;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        EXPECT_TRUE(core.run_until([&] { return core.notified.size() == 100; }));
        EXPECT_EQ(std::ranges::count(core.notified, "done"), 100);
}

TEST(Crew, AHolderKeepsGivesBackAndReleases) {
        MiniCore core;
        const auto tcp = test::listener();
        const auto udp = test::udp_bound();
        const std::vector<std::uint64_t> cookies{cookie_of(tcp.get()), cookie_of(udp.get())};
        const pid_t peer = spawn(kHonest, {tcp.get(), udp.get()}, [&] {
                const auto connection = unix_socket(core.control_path(), SOCK_SEQPACKET, false);
                if (ask(connection.get(), "hold web", {tcp.get(), udp.get(), udp.get()}) != "done" ||
                    ask(connection.get(), "hold web", {tcp.get()}) != "done" ||
                    !send_record(connection.get(), "get web")) {
                        return 1;
                }
                pollfd polled{connection.get(), POLLIN, 0};
                poll(&polled, 1, -1);
                const auto answer = receive(connection.get());
                if (!answer || answer->fds.size() != 2) {
                        return 2;
                }
                std::set<std::uint64_t> got;
                for (const auto& fd : answer->fds) {
                        got.insert(cookie_of(fd.get()));
                }
                return got == std::set<std::uint64_t>(cookies.begin(), cookies.end()) ? 0 : 3;
        });
        ASSERT_EQ(core.run_while(peer), 0);
        EXPECT_TRUE(core.run_until([&] { return core.sent == std::vector{0}; }));
        EXPECT_EQ(core.hands("sb-holder").size(), 1U);
        auto kept = core.crew().kept("web");
        std::ranges::sort(kept);
        auto sorted = cookies;
        std::ranges::sort(sorted);
        EXPECT_EQ(kept, sorted);
        for (const auto cookie : cookies) {
                core.crew().release("web", cookie);
        }
        EXPECT_TRUE(core.crew().kept("web").empty());
        EXPECT_TRUE(core.run_until([&] { return core.hands("sb-holder").empty(); })) << "with nothing to keep it ends";
}

TEST(Crew, AHolderTellsTheManagerInOrder) {
        MiniCore core({.hands = 2, .with_manager = true});
        std::vector<OwnedFd> sockets;
        sockets.push_back(test::listener());
        const auto cookie = cookie_of(sockets[0].get());
        std::optional<Taken> adopted;
        sockets.push_back(std::move(test::make_kind("eventfd")[0]));
        core.crew().adopt("web", {cookie, 7}, std::move(sockets), {}, [&](const Taken& taken) { adopted = taken; });
        ASSERT_TRUE(core.run_until([&] { return adopted.has_value(); }));
        ASSERT_EQ(adopted->found.size(), 2U);
        EXPECT_EQ(adopted->found[0].staging, Staging::kKept);
        EXPECT_EQ(core.crew().kept("web"), (std::vector<std::uint64_t>{cookie, 7})) << "whatever they are";
        for (int i = 0; i < 20; i++) {  // more than its queue takes
                core.crew().store("web", cookie, "name-" + std::to_string(i));
        }
        for (int i = 0; i < 20; i++) {
                const auto message = core.next_to_manager();
                EXPECT_EQ(message.text, "FDSTORE=1\nFDPOLL=0\nFDNAME=name-" + std::to_string(i));
                ASSERT_EQ(message.fds.size(), 1U);
                EXPECT_EQ(cookie_of(message.fds[0].get()), cookie);
        }
}

// PID 1 must not be the last to close a socket: its owner says how long that takes.
TEST(Crew, AHolderClosesASocketWhenTheManagerHasForgottenIt) {
        MiniCore core({.hands = 2, .with_manager = true});
        std::vector<OwnedFd> sockets;
        sockets.push_back(test::listener());
        const auto cookie = cookie_of(sockets[0].get());
        sockaddr_in address{};
        socklen_t size = sizeof address;
        getsockname(sockets[0].get(), reinterpret_cast<sockaddr*>(&address), &size);
        const auto listens = [&] {
                const auto one = test::made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
                return connect(one.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0;
        };
        bool adopted = false;
        core.crew().adopt("web", {cookie}, std::move(sockets), {}, [&](const Taken&) { adopted = true; });
        ASSERT_TRUE(core.run_until([&] { return adopted; }));
        core.crew().release("web", cookie, "name");
        EXPECT_FALSE(core.crew().keeps("web", cookie));
        EXPECT_EQ(core.next_to_manager().text, "FDSTOREREMOVE=1\nFDNAME=name");
        auto barrier = core.next_to_manager();
        EXPECT_EQ(barrier.text, "BARRIER=1");
        ASSERT_EQ(barrier.fds.size(), 1U);
        EXPECT_TRUE(listens());
        EXPECT_TRUE(core.forgotten.empty());
        barrier.fds.clear();
        EXPECT_TRUE(core.run_until([&] { return core.forgotten == std::vector<std::string>{"name"}; }));
        EXPECT_TRUE(core.run_until([&] { return !listens(); }));
        EXPECT_TRUE(core.run_until([&] { return core.hands("sb-holder").empty(); })) << "with nothing to keep it ends";
}

TEST(Crew, WhatTheManagerIsToForgetItIsToldAgainByTheNextHolder) {
        MiniCore core({.hands = 2, .with_manager = true});
        core.crew().release("web", 1, "name");
        EXPECT_EQ(core.next_to_manager().text, "FDSTOREREMOVE=1\nFDNAME=name");
        const auto unanswered = core.next_to_manager();
        EXPECT_EQ(unanswered.text, "BARRIER=1");
        ASSERT_TRUE(core.kill_one("sb-holder"));
        EXPECT_EQ(core.next_to_manager().text, "FDSTOREREMOVE=1\nFDNAME=name");
        (void)core.next_to_manager();
        EXPECT_TRUE(core.run_until([&] { return core.forgotten == std::vector<std::string>{"name"}; }));
}

TEST(Crew, AHolderSaysHowMuchWaitsInASocket) {
        MiniCore core;
        std::vector<OwnedFd> sockets;
        sockets.push_back(test::udp_bound());
        const auto cookie = cookie_of(sockets[0].get());
        sockaddr_in address{};
        socklen_t size = sizeof address;
        getsockname(sockets[0].get(), reinterpret_cast<sockaddr*>(&address), &size);
        core.crew().adopt("web", {cookie}, std::move(sockets), {}, [](const Taken&) {});
        std::vector<Found> found;
        const auto sample = [&] {
                found.clear();
                core.crew().sample("web", {cookie, 1}, [&](const Taken& taken) { found = taken.found; });
                return core.run_until([&] { return !found.empty(); });
        };
        ASSERT_TRUE(sample());
        EXPECT_EQ(found[0].waiting, 0U);
        const auto sender = test::made(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
        ASSERT_EQ(sendto(sender.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&address), size), 1);
        ASSERT_TRUE(sample());
        EXPECT_EQ(found[0].facts.cookie, cookie);
        EXPECT_GT(found[0].waiting, 0U);
        EXPECT_EQ(found[1].errnum, ENOENT);
}

// What an earlier broker has held stays so, however many services that are.
TEST(Crew, NoServiceSharesAHolder) {
        MiniCore core;
        std::size_t adopted = 0;
        std::map<std::string, std::uint64_t> cookies;
        const std::size_t services = Crew::kMaxHolders + 2;
        for (std::size_t i = 0; i < services; i++) {
                std::vector<OwnedFd> one;
                one.push_back(test::udp_bound());
                cookies["s" + std::to_string(i)] = cookie_of(one[0].get());
                core.crew().adopt("s" + std::to_string(i), {cookies["s" + std::to_string(i)]}, std::move(one), {},
                                  [&](const Taken&) { adopted++; });
        }
        ASSERT_TRUE(core.run_until([&] { return adopted == services; }));
        EXPECT_EQ(core.hands("sb-holder").size(), services);
        for (const auto& [name, cookie] : cookies) {
                EXPECT_EQ(core.crew().kept(name), std::vector{cookie});
                core.crew().release(name, cookie);
        }
        EXPECT_TRUE(core.run_until([&] { return core.hands("sb-holder").empty(); }));
}

TEST(Crew, TheProcessesHaveNoPowerAndNothingOpenThatIsNotTheirs) {
        MiniCore core;
        ASSERT_TRUE(core.run_until([&] {
                return core.hands("sb-intake").size() == 2 && core.hands("sb-disposal").size() == 2 &&
                       core.hands("sb-door").size() == 1;
        }));
        auto all = core.hands("sb-intake");
        for (const char* name : {"sb-disposal", "sb-door"}) {
                for (const auto& one : core.hands(name)) {
                        all.push_back(one);
                }
        }
        const std::map<std::string, std::size_t> most{{"sb-intake", 7}, {"sb-disposal", 7}, {"sb-door", 6}};
        for (const auto& one : all) {
                const auto place = "/proc/" + std::to_string(one.pid);
                std::ifstream file(place + "/status");
                std::map<std::string, std::string> status;
                for (std::string key, value; file >> key && std::getline(file >> std::ws, value);) {
                        status[key] = value;
                }
                EXPECT_EQ(status["CapPrm:"], "0000000000000000") << one.name;
                EXPECT_EQ(status["CapBnd:"], "0000000000000000") << one.name;
                EXPECT_EQ(status["NoNewPrivs:"], "1") << one.name;
                EXPECT_EQ(status["Seccomp:"], "2") << one.name;
                std::size_t open = 0;
                for (const auto& entry : std::filesystem::directory_iterator(place + "/fd")) {
                        (void)entry;
                        open++;
                }
                EXPECT_LE(open, most.at(one.name)) << one.name;
        }
}

}  // namespace
}  // namespace sockbroker::hands
