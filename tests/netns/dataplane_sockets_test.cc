// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which socket takes a packet, what is counted, and when a slot is used again. The last tests send real packets over
// the loopback interface of the test's own namespace.
#include <bpf/bpf.h>
#include <net/if.h>
#include <poll.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

class Sockets : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open();
                id_ = add("web");
                rules({rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, id_),
                       rule(Protocol::kTcp, "2a00::/16", {80, 80}, id_),
                       rule(Protocol::kUdp, "1.0.0.0/24", {80, 80}, id_)});
        }

        void target(Protocol protocol, Family family, const std::vector<Slot>& slots) {
                Targets targets{};
                targets.slots[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)] = slots;
                const auto set = dataplane_->set_targets(id_, targets);
                ASSERT_TRUE(set) << set.error().text();
        }

        [[nodiscard]] Reply ask_tcp4() const { return ask(packet(Protocol::kTcp, "1.0.0.1", 80)); }

        ServiceId id_ = 0;
};

TEST_F(Sockets, the_newest_serves_and_the_reserve_when_it_goes) {
        auto newest = make_socket(Protocol::kTcp, Family::kIpv4);
        auto reserve = make_socket(Protocol::kTcp, Family::kIpv4);
        target(Protocol::kTcp, Family::kIpv4, {install(newest, id_), install(reserve, id_)});
        EXPECT_EQ(ask_tcp4().cookie, newest.cookie);
        newest.fd.reset();
        EXPECT_EQ(ask_tcp4().cookie, reserve.cookie);
        reserve.fd.reset();
        const Reply none = ask_tcp4();
        EXPECT_EQ(none.cookie, 0U);
        EXPECT_FALSE(none.passed) << "refused";
        const ServiceCounters counters = dataplane_->counters(id_);
        EXPECT_EQ(counters.lookups, 3U);
        EXPECT_EQ(counters.assigned, 2U);
        EXPECT_EQ(counters.no_socket, 1U);
}

// What a process does that has nothing but the staging map.
void offer(const Dataplane& dataplane, std::uint32_t entry, const TestSocket& socket) {
        const std::uint64_t value = static_cast<std::uint64_t>(socket.fd.get());
        ASSERT_EQ(bpf_map_update_elem(dataplane.staging_fd(), &entry, &value, BPF_ANY), 0) << std::strerror(errno);
}

TEST_F(Sockets, a_socket_from_the_staging_map_serves) {
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        offer(*dataplane_, 17, socket);
        const auto slot = dataplane_->install_staged(17, {.service = id_, .cookie = socket.cookie});
        ASSERT_TRUE(slot) << slot.error().text();
        target(Protocol::kTcp, Family::kIpv4, {*slot});
        EXPECT_EQ(ask_tcp4().cookie, socket.cookie);
}

TEST_F(Sockets, another_socket_than_the_one_that_was_judged_is_not_installed) {
        const auto judged = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto other = make_socket(Protocol::kTcp, Family::kIpv4);
        offer(*dataplane_, 17, other);
        const auto free_before = dataplane_->free_slots();
        const auto slot = dataplane_->install_staged(17, {.service = id_, .cookie = judged.cookie});
        ASSERT_FALSE(slot);
        EXPECT_EQ(slot.error().errnum, ENOENT);
        EXPECT_EQ(dataplane_->free_slots(), free_before);
        EXPECT_TRUE(dataplane_->registrants().empty());
}

TEST_F(Sockets, a_socket_that_was_closed_meanwhile_is_not_installed) {
        auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
        offer(*dataplane_, 17, socket);
        socket.fd.reset();
        const auto slot = dataplane_->install_staged(17, {.service = id_, .cookie = socket.cookie});
        ASSERT_FALSE(slot);
        EXPECT_EQ(slot.error().errnum, ENOENT);
}

TEST_F(Sockets, who_has_the_staging_map_alone_cannot_touch_a_slot) {
        const auto serving = make_socket(Protocol::kTcp, Family::kIpv4);
        offer(*dataplane_, 17, serving);
        const auto slot = dataplane_->install_staged(17, {.service = id_, .cookie = serving.cookie});
        ASSERT_TRUE(slot) << slot.error().text();
        target(Protocol::kTcp, Family::kIpv4, {*slot});
        const auto other = make_socket(Protocol::kTcp, Family::kIpv4);
        for (std::uint32_t entry = 0; entry < Dataplane::kStagingEntries; entry++) {
                offer(*dataplane_, entry, other);
                // A socket in n entries takes n * n steps of the kernel to close, during which no grace period ends.
                ASSERT_EQ(bpf_map_delete_elem(dataplane_->staging_fd(), &entry), 0);
        }
        EXPECT_EQ(ask_tcp4().cookie, serving.cookie);
}

TEST_F(Sockets, a_listener_that_was_shut_down_falls_to_the_reserve) {
        const auto newest = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto reserve = make_socket(Protocol::kTcp, Family::kIpv4);
        const Slot slot = install(newest, id_);
        target(Protocol::kTcp, Family::kIpv4, {slot, install(reserve, id_)});
        ASSERT_EQ(shutdown(newest.fd.get(), SHUT_RD), 0);
        EXPECT_EQ(dataplane_->cookie(slot), newest.cookie) << "the map still has it";
        EXPECT_EQ(ask_tcp4().cookie, reserve.cookie);
        const ServiceCounters counters = dataplane_->counters(id_);
        EXPECT_EQ(counters.assigned, 1U);
        EXPECT_EQ(counters.error_state, 1U);
        EXPECT_EQ(counters.no_socket, 0U);
}

TEST_F(Sockets, a_udp_socket_that_has_lost_its_port_takes_no_lookups) {
        const auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
        const Slot slot = install(socket, id_);
        EXPECT_TRUE(dataplane_->takes_lookups(slot, Protocol::kUdp, Family::kIpv4));
        const sockaddr_in somebody{.sin_family = AF_INET, .sin_port = 9, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
        ASSERT_EQ(connect(socket.fd.get(), reinterpret_cast<const sockaddr*>(&somebody), sizeof somebody), 0);
        ASSERT_EQ(connect(socket.fd.get(), &nobody, sizeof nobody), 0) << "to which the kernel chose the port";
        EXPECT_EQ(dataplane_->cookie(slot), socket.cookie) << "the map still has it";
        EXPECT_FALSE(dataplane_->takes_lookups(slot, Protocol::kUdp, Family::kIpv4));
}

TEST_F(Sockets, errors_are_counted_by_cause) {
        const auto v4 = make_socket(Protocol::kTcp, Family::kIpv4);
        target(Protocol::kTcp, Family::kIpv6, {install(v4, id_)});
        const Reply mismatch = ask(packet(Protocol::kTcp, "2a00::1", 80));
        EXPECT_EQ(mismatch.cookie, 0U);
        EXPECT_FALSE(mismatch.passed);
        EXPECT_EQ(dataplane_->counters(id_).error_family, 1U);
        const auto udp = make_socket(Protocol::kUdp, Family::kIpv4);
        target(Protocol::kTcp, Family::kIpv4, {install(udp, id_)});
        EXPECT_EQ(ask_tcp4().cookie, 0U);
        EXPECT_EQ(dataplane_->counters(id_).error_protocol, 1U);
        EXPECT_EQ(dataplane_->counters(id_).no_socket, 2U);
}

TEST_F(Sockets, what_the_kernel_refuses_is_an_error_and_costs_no_slot) {
        OwnedFd unbound(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        for (unsigned i = 0; i < 2 * kSmall.sockets; i++) {
                const auto refused = dataplane_->install(unbound.get(), {.service = id_, .cookie = 1});
                ASSERT_FALSE(refused);
                ASSERT_EQ(refused.error().errnum, EOPNOTSUPP) << refused.error().text();
        }
        EXPECT_TRUE(dataplane_->registrants().empty());
        EXPECT_NE(install(make_socket(Protocol::kTcp, Family::kIpv4), id_), 0U);
}

TEST_F(Sockets, a_slot_is_not_used_again_while_others_are_free_and_all_are_in_the_end) {
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        const Slot removed = install(socket, id_);
        dataplane_->remove(removed);
        std::set<Slot> taken;
        for (unsigned i = 0; i < kSmall.sockets; i++) {
                const Slot slot = install(socket, id_);
                EXPECT_NE(slot, removed);
                EXPECT_TRUE(taken.insert(slot).second);
        }
        const auto full = dataplane_->install(socket.fd.get(), {.service = id_, .cookie = socket.cookie});
        ASSERT_FALSE(full);
        EXPECT_EQ(full.error().errnum, EBUSY);
        EXPECT_NE(full.error().message.find("MaxSockets="), std::string::npos);
        for (unsigned i = 0; i < 300; i++) {
                dataplane_->remove(*taken.begin());
                taken.erase(taken.begin());
                const Slot slot = install(socket, id_);
                ASSERT_TRUE(taken.insert(slot).second) << "two sockets in slot " << slot;
        }
        EXPECT_EQ(dataplane_->registrants().size(), kSmall.sockets);
}

TEST_F(Sockets, a_target_names_only_slots_that_hold_something) {
        Targets targets{};
        first(targets, Protocol::kTcp, Family::kIpv4) = 7;
        EXPECT_FALSE(dataplane_->set_targets(id_, targets));
        first(targets, Protocol::kTcp, Family::kIpv4) = 70000;
        EXPECT_FALSE(dataplane_->set_targets(id_, targets));
        EXPECT_FALSE(dataplane_->set_targets(id_ + 1, Targets{}));
}

TEST_F(Sockets, ids_of_services_are_used_again_with_their_counters_at_zero) {
        EXPECT_FALSE(ask_tcp4().passed);
        EXPECT_EQ(dataplane_->counters(id_).no_socket, 1U);
        rules({});
        dataplane_->remove_service(id_);
        EXPECT_EQ(dataplane_->counters(id_).no_socket, 0U);
        EXPECT_EQ(dataplane_->service_names()[id_], "");
        std::set<ServiceId> ids;
        for (unsigned i = 0; i < 2 * kSmall.services; i++) {  // those of two policies, one after the other
                const ServiceId id = add("n" + std::to_string(i));
                EXPECT_EQ(dataplane_->counters(id).lookups, 0U);
                ids.insert(id);
        }
        EXPECT_EQ(ids.size(), 2 * kSmall.services);
        const auto full = dataplane_->add_service("one-more");
        ASSERT_FALSE(full);
        EXPECT_NE(full.error().message.find("MaxServices="), std::string::npos) << full.error().message;
}

// --- real packets

OwnedFd client(Protocol protocol, const char* to, std::uint16_t port, int& error) {
        OwnedFd fd(socket(AF_INET, (protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
        sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, to, &address.sin_addr);
        error = connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
        return fd;
}

TEST_F(Sockets, real_connections_arrive_and_are_refused_at_once_when_nobody_is_there) {
        ASSERT_EQ(std::system("ip route replace local 1.0.0.0/24 dev lo"), 0);
        auto listener = make_socket(Protocol::kTcp, Family::kIpv4);
        target(Protocol::kTcp, Family::kIpv4, {install(listener, id_)});
        int error = 0;
        for (const char* to : {"1.0.0.1", "1.0.0.200"}) {
                const OwnedFd connected = client(Protocol::kTcp, to, 80, error);
                EXPECT_EQ(error, 0) << strerror(error);
                const OwnedFd accepted(accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
                sockaddr_in local{};
                socklen_t length = sizeof local;
                ASSERT_EQ(getsockname(accepted.get(), reinterpret_cast<sockaddr*>(&local), &length), 0);
                char text[INET_ADDRSTRLEN];
                EXPECT_STREQ(inet_ntop(AF_INET, &local.sin_addr, text, sizeof text), to);
                EXPECT_EQ(ntohs(local.sin_port), 80);
        }
        (void)client(Protocol::kTcp, "1.0.0.1", 81, error);
        EXPECT_EQ(error, ECONNREFUSED) << "no rule for the port";
        listener.fd.reset();
        (void)client(Protocol::kTcp, "1.0.0.1", 80, error);
        EXPECT_EQ(error, ECONNREFUSED);
        const ServiceCounters counters = dataplane_->counters(id_);
        EXPECT_EQ(counters.assigned, 2U);
        EXPECT_EQ(counters.no_socket, 1U);
}

TEST_F(Sockets, real_connections_are_told_apart_by_interface_and_source) {
        ASSERT_EQ(std::system("ip route replace local 1.0.0.0/24 dev lo"), 0);
        const std::uint32_t lo = if_nametoindex("lo");
        ASSERT_NE(lo, 0U);
        const auto any = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto special = make_socket(Protocol::kTcp, Family::kIpv4);
        const ServiceId other = add("special");
        serve(id_, any);
        serve(other, special);
        const auto who_answers = [&](const std::optional<Prefix>& source, std::uint32_t ifindex) {
                Rule conditional = rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, other);
                conditional.source = source;
                conditional.ifindex = ifindex;
                rules({rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, id_), conditional});
                int error = 0;
                const OwnedFd connected = client(Protocol::kTcp, "1.0.0.1", 80, error);
                EXPECT_EQ(error, 0) << strerror(error);
                pollfd ready[2] = {{.fd = any.fd.get(), .events = POLLIN}, {.fd = special.fd.get(), .events = POLLIN}};
                EXPECT_EQ(poll(ready, 2, 20'000), 1);
                const bool was_special = (ready[1].revents & POLLIN) != 0;
                const OwnedFd accepted(accept4(ready[was_special ? 1 : 0].fd, nullptr, nullptr, SOCK_CLOEXEC));
                return was_special ? other : id_;
        };
        EXPECT_EQ(who_answers(std::nullopt, lo), other);
        EXPECT_EQ(who_answers(std::nullopt, lo + 1), id_);
        // A client without an address of its own takes the one that it asks.
        EXPECT_EQ(who_answers(*parse_prefix("1.0.0.1/32"), lo), other);
        EXPECT_EQ(who_answers(*parse_prefix("1.0.0.2/31"), lo), id_);
        EXPECT_EQ(who_answers(*parse_prefix("1.0.0.0/31"), 0), other);
}

TEST_F(Sockets, real_datagrams_arrive_and_absence_lets_the_ordinary_look_up_go_on) {
        ASSERT_EQ(std::system("ip route replace local 1.0.0.0/24 dev lo"), 0);
        auto brokered = make_socket(Protocol::kUdp, Family::kIpv4);
        target(Protocol::kUdp, Family::kIpv4, {install(brokered, id_)});
        const OwnedFd wildcard(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const sockaddr_in any{.sin_family = AF_INET, .sin_port = htons(80)};
        ASSERT_EQ(bind(wildcard.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0) << strerror(errno);
        const auto arrives = [&](const OwnedFd& at) {
                int error = 0;
                const OwnedFd sender = client(Protocol::kUdp, "1.0.0.7", 80, error);
                EXPECT_EQ(send(sender.get(), "q", 1, 0), 1);
                pollfd ready{.fd = at.get(), .events = POLLIN};
                char byte = 0;
                return poll(&ready, 1, 20'000) == 1 && recv(at.get(), &byte, 1, 0) == 1;
        };
        EXPECT_TRUE(arrives(brokered.fd));
        brokered.fd.reset();
        rules({rule(Protocol::kUdp, "1.0.0.0/24", {80, 80}, id_, Absent::kPass)});
        EXPECT_TRUE(arrives(wildcard));
}

}  // namespace
}  // namespace sockbroker
