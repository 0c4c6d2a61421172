// SPDX-License-Identifier: LGPL-2.1-or-later
//
// explain() says what real packets do: over random rules, with services that have sockets, share them, have none, have
// some that were closed or shut down, or are of the wrong family.
#include <netinet/in.h>
#include <sys/epoll.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <random>
#include <set>

#include "tests/netns/dataplane_explained.h"

namespace sockbroker {
namespace {

using oracle::Packet;
using oracle::Verdict;

// Real packets over lo, whose addresses are all local. Ordinary sockets stand where dispatch passes, so that each
// packet ends at a socket or in a refusal, and nothing has to be waited for that does not come.
class RealPackets : public ExplainTest {
protected:
        static constexpr std::uint16_t kPorts[] = {53, 80, 443, 4000};

        static void routes(const std::string& change) {
                for (const char* range : {"10.0.0.0/8", "fd00::/8"}) {
                        const auto command = "ip route " + change + " local " + range + " dev lo";
                        ASSERT_EQ(std::system(command.c_str()), 0);  // NOLINT(cert-env33-c): a test, fixed text
                }
        }
        void TearDown() override {
                routes("del");
                ExplainTest::TearDown();
        }
        void SetUp() override {
                ExplainTest::SetUp();
                routes("add");
                events_.reset(epoll_create1(EPOLL_CLOEXEC));
                for (const std::uint16_t port : kPorts) {
                        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                                        ordinary_.push_back(bound(protocol, family, port));
                                        watch(ordinary_.back());
                                }
                        }
                }
        }

        static TestSocket bound(Protocol protocol, Family family, std::uint16_t port) {
                const bool v4 = family == Family::kIpv4;
                TestSocket result{.protocol = protocol, .family = family};
                const int kind = protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM;
                result.fd.reset(socket(v4 ? AF_INET : AF_INET6, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
                const int on = 1;
                EXPECT_EQ(setsockopt(result.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
                if (!v4) {
                        EXPECT_EQ(setsockopt(result.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
                }
                const sockaddr_in a4{.sin_family = AF_INET, .sin_port = htons(port)};
                const sockaddr_in6 a6{.sin6_family = AF_INET6, .sin6_port = htons(port)};
                const auto* address =
                        v4 ? reinterpret_cast<const sockaddr*>(&a4) : reinterpret_cast<const sockaddr*>(&a6);
                EXPECT_EQ(bind(result.fd.get(), address, v4 ? sizeof a4 : sizeof a6), 0) << strerror(errno);
                if (protocol == Protocol::kTcp) {
                        EXPECT_EQ(listen(result.fd.get(), 64), 0);
                }
                return result;
        }

        void watch(const TestSocket& socket) const {
                epoll_event event{.events = EPOLLIN, .data = {.ptr = const_cast<TestSocket*>(&socket)}};
                ASSERT_EQ(epoll_ctl(events_.get(), EPOLL_CTL_ADD, socket.fd.get(), &event), 0);
        }

        // The client's half: bound, so that its port is known before the packet goes.
        struct Client {
                OwnedFd fd;
                std::uint16_t port = 0;
        };
        static Client client(const Packet& packet) {
                const bool v4 = packet.to.family == Family::kIpv4;
                Client result;
                const int kind = packet.protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM;
                result.fd.reset(socket(v4 ? AF_INET : AF_INET6, kind | SOCK_CLOEXEC, 0));
                const linger at_once{.l_onoff = 1, .l_linger = 0};
                EXPECT_EQ(setsockopt(result.fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
                const int on = 1;
                (void)setsockopt(result.fd.get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);  // IPv4 needs none
                sockaddr_storage address = endpoint(packet.from, 0);
                EXPECT_EQ(bind(result.fd.get(), reinterpret_cast<sockaddr*>(&address), size(v4)), 0)
                        << packet.from.to_string() << ": " << strerror(errno);
                socklen_t length = sizeof address;
                EXPECT_EQ(getsockname(result.fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
                result.port = ntohs(v4 ? reinterpret_cast<sockaddr_in&>(address).sin_port
                                       : reinterpret_cast<sockaddr_in6&>(address).sin6_port);
                return result;
        }
        static socklen_t size(bool v4) { return v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6); }
        static sockaddr_storage endpoint(const Address& address, std::uint16_t port) {
                sockaddr_storage result{};
                if (address.family == Family::kIpv4) {
                        auto& v4 = reinterpret_cast<sockaddr_in&>(result);
                        v4.sin_family = AF_INET;
                        v4.sin_port = htons(port);
                        std::memcpy(&v4.sin_addr, address.bytes.data(), 4);
                } else {
                        auto& v6 = reinterpret_cast<sockaddr_in6&>(result);
                        v6.sin6_family = AF_INET6;
                        v6.sin6_port = htons(port);
                        std::memcpy(&v6.sin6_addr, address.bytes.data(), 16);
                }
                return result;
        }

        // Cookie of the socket that the packet reached, 0 for an ordinary one; none: refused.
        std::optional<std::uint64_t> send(const Client& client, const Packet& packet) {
                const bool v4 = packet.to.family == Family::kIpv4;
                const sockaddr_storage to = endpoint(packet.to, packet.port);
                const int connected = connect(client.fd.get(), reinterpret_cast<const sockaddr*>(&to), size(v4));
                if (packet.protocol == Protocol::kTcp && connected != 0) {
                        EXPECT_EQ(errno, ECONNREFUSED) << packet.to.to_string() << ": " << strerror(errno);
                        return std::nullopt;
                }
                EXPECT_EQ(connected, 0) << packet.to.to_string() << ": " << strerror(errno);
                if (packet.protocol == Protocol::kUdp) {
                        EXPECT_EQ(::send(client.fd.get(), "?", 1, 0), 1) << strerror(errno);
                }
                epoll_event watched{.events = 0, .data = {.ptr = nullptr}};  // EPOLLERR comes unasked
                EXPECT_EQ(epoll_ctl(events_.get(), EPOLL_CTL_ADD, client.fd.get(), &watched), 0);
                epoll_event event{};
                int events = 0;
                do {
                        events = epoll_wait(events_.get(), &event, 1, 10'000);
                } while (events < 0 && errno == EINTR);
                EXPECT_EQ(epoll_ctl(events_.get(), EPOLL_CTL_DEL, client.fd.get(), nullptr), 0);
                if (events != 1) {
                        ADD_FAILURE() << "the packet to " << packet.to.to_string() << " is nowhere";
                        return std::nullopt;
                }
                if (event.data.ptr == nullptr) {
                        return std::nullopt;
                }
                const auto* socket = static_cast<const TestSocket*>(event.data.ptr);
                if (socket->protocol == Protocol::kUdp) {
                        char byte = 0;
                        EXPECT_EQ(recv(socket->fd.get(), &byte, 1, MSG_DONTWAIT), 1);
                } else {
                        const OwnedFd accepted(accept4(socket->fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
                        EXPECT_TRUE(accepted.valid());
                }
                return socket->cookie;
        }

        OwnedFd events_;
        std::deque<TestSocket> ordinary_;
};

// A service, and what becomes of it.
enum class Fate : std::uint8_t { kServes, kShares, kReserve, kAbsent, kClosed, kShut, kDraining };

TEST_F(RealPackets, s15_explain_equals_what_packets_do) {
        const unsigned packets = std::getenv("SOCKBROKER_LONG") != nullptr ? 20'000 : 2'000;
        constexpr unsigned kOfEachPolicy = 250;
        constexpr unsigned kServices = 12;
        open({.bindings = 2000, .services = 16, .sockets = 400});
        std::map<Verdict, unsigned> verdicts;
        std::map<Fate, unsigned> fates;
        unsigned shared = 0;
        std::mt19937 random(20'26);
        const auto below = [&](std::uint32_t limit) { return static_cast<std::uint32_t>(random() % limit); };
        std::vector<ServiceId> ids;
        for (unsigned i = 0; i < kServices; i++) {
                ids.push_back(add("service-" + std::to_string(i)));
        }
        for (unsigned done = 0; done < packets; done += kOfEachPolicy) {
                std::deque<TestSocket> sockets;
                std::vector<Slot> slots;
                std::map<ServiceId, Fate> fate;
                for (const ServiceId id : ids) {
                        const auto meant = static_cast<Fate>(below(7));
                        fate[id] = meant;
                        Targets targets{.share = meant == Fate::kShares};
                        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                                        auto& named = targets.slots[static_cast<std::size_t>(protocol)]
                                                                   [static_cast<std::size_t>(family)];
                                        const unsigned count = meant == Fate::kAbsent   ? 0
                                                               : meant == Fate::kShares ? 3 + below(6)
                                                                                        : 2;
                                        for (unsigned n = 0; n < count; n++) {
                                                auto& socket = sockets.emplace_back(make_socket(protocol, family));
                                                watch(socket);
                                                slots.push_back(install(socket, id));
                                                // Displaced for good: in a slot that no target names.
                                                if (meant != Fate::kDraining || n > 0) {
                                                        named.push_back(slots.back());
                                                }
                                                if (meant == Fate::kClosed || (meant == Fate::kReserve && n == 0)) {
                                                        socket.fd.reset();
                                                } else if (meant == Fate::kShut) {
                                                        if (protocol == Protocol::kTcp) {
                                                                (void)shutdown(socket.fd.get(), SHUT_RD);
                                                                (void)epoll_ctl(events_.get(), EPOLL_CTL_DEL,
                                                                                socket.fd.get(), nullptr);
                                                        } else {
                                                                socket.fd.reset();
                                                        }
                                                }
                                        }
                                }
                        }
                        ASSERT_TRUE(dataplane_->set_targets(id, targets));
                }
                const auto address = [&](Family family) {
                        Address result = *parse_address(family == Family::kIpv4 ? "10.0.0.0" : "fd00::");
                        const std::size_t last = family == Family::kIpv4 ? 4 : 16;
                        for (std::size_t byte = last - 2; byte < last; byte++) {
                                result.bytes.at(byte) = static_cast<std::uint8_t>(below(4));
                        }
                        result.bytes.at(last - 1)++;
                        return result;
                };
                const auto prefix = [&](Family family) {
                        const auto length = static_cast<std::uint8_t>(address_bits(family) - below(18));
                        return Prefix{masked(address(family), length), length};
                };
                std::vector<Rule> set;
                std::set<std::string> said;
                for (unsigned i = 0; i < 60; i++) {
                        const Family family = below(2) != 0 ? Family::kIpv4 : Family::kIpv6;
                        Rule one{.protocol = below(2) != 0 ? Protocol::kTcp : Protocol::kUdp,
                                 .prefix = prefix(family),
                                 .service = ids[below(kServices)],
                                 .absent = static_cast<Absent>(below(3))};
                        const auto port = kPorts[below(4)];
                        one.ports = below(3) == 0 ? PortRange{} : PortRange{port, port};
                        if (below(4) == 0) {
                                one.source = prefix(family);
                        }
                        one.ifindex = below(4) == 0 ? 1 + below(2) : 0;
                        const auto key = std::string(to_string(one.protocol)) + one.prefix.to_string() +
                                         one.ports.to_string() + (one.source ? one.source->to_string() : "") +
                                         std::to_string(one.ifindex);
                        if (said.insert(key).second) {
                                set.push_back(one);
                        }
                }
                rules(set);
                for (unsigned i = 0; i < kOfEachPolicy; i++) {
                        Packet packet;
                        packet.protocol = below(2) != 0 ? Protocol::kTcp : Protocol::kUdp;
                        packet.to = address(below(2) != 0 ? Family::kIpv4 : Family::kIpv6);
                        packet.from = address(packet.to.family);
                        packet.port = kPorts[below(4)];
                        packet.ifindex = 1;  // lo
                        const Client from = client(packet);
                        const auto said_before = explain(look_up(packet, from.port));
                        const auto reached = send(from, packet);
                        const Verdict verdict = verdict_of(said_before);
                        ASSERT_FALSE(HasFailure());
                        ASSERT_EQ(verdict, !reached        ? Verdict::kRefused
                                           : *reached == 0 ? Verdict::kPass
                                                           : Verdict::kSocket)
                                << "policy " << done / kOfEachPolicy << ", packet " << i << " to "
                                << packet.to.to_string() << " port " << packet.port;
                        ASSERT_EQ(said_before.cookie, reached.value_or(0)) << "packet " << i;
                        verdicts[verdict]++;
                        for (const auto& step : said_before.steps) {
                                fates[fate[step.service]]++;
                                shared += step.shared && step.delivered ? 1 : 0;
                        }
                }
                for (const ServiceId id : ids) {
                        ASSERT_TRUE(dataplane_->set_targets(id, Targets{}));
                }
                for (const Slot slot : slots) {
                        dataplane_->remove(slot);
                }
        }
        EXPECT_GT(verdicts[Verdict::kSocket], packets / 20);
        EXPECT_GT(verdicts[Verdict::kRefused], packets / 50);
        EXPECT_GT(verdicts[Verdict::kPass], packets / 50);
        EXPECT_EQ(fates.size(), 7U) << "every kind of service is met";
        EXPECT_GT(shared, packets / 100);
        std::printf("%u packets: %u to sockets, %u refused, %u passed\n", packets, verdicts[Verdict::kSocket],
                    verdicts[Verdict::kRefused], verdicts[Verdict::kPass]);
}

}  // namespace
}  // namespace sockbroker
