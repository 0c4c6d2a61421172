// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Memory that ends in the midst of a hand-over, or while a service is added, at each allocation in turn: what was not
// done to its end leaves no slot, record, id or name behind, and whoever served serves on. And a change that takes
// turns with others.
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <new>
#include <set>
#include <string>

#include "bpf/layout.h"
#include "broker/registry/registry.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/support/scarce_memory.h"

namespace sockbroker {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kSlots = 256;
constexpr std::size_t kAll = SIZE_MAX;

class RegistryMemory : public DataplaneTest {
protected:
        void start() {
                open({.bindings = 16, .services = 4, .sockets = kSlots});
                registry_ = std::make_unique<Registry>(*dataplane_);
                registry_->take_up();
                Service& service = policy_.services.emplace_back();
                service.name = "web";
                service.bindings = {{.prefix = *parse_prefix("10.0.0.0/24"), .protocol = Protocol::kTcp}};
                const auto done = registry_->set_policy(policy_, {});
                ASSERT_TRUE(done) << done.error().text();
        }

        // False: it did not come to its end for want of memory. So many allocations may be made, below 0 any number.
        bool hand_over(const TestSocket& socket, long allocations) {
                return hand_over_to(policy_.services[0], socket, allocations);
        }

        bool hand_over_to(const Service& service, const TestSocket& socket, long allocations = -1) {
                SocketFacts facts;
                facts.cookie = socket.cookie;
                const Offer offer{.fd = socket.fd.get(), .facts = facts, .serves = {.ipv4 = true}};
                const Peer peer{.pid = 1, .unit = "a-unit-whose-name-does-not-fit-into-a-short-string.service"};
                try {
                        const auto handed = test::with_memory_for(allocations, [&] {
                                return registry_->commit(service, peer, {&offer, 1});
                        });
                        EXPECT_TRUE(handed) << handed.error().message;
                        return true;
                } catch (const std::bad_alloc&) {
                        return false;
                }
        }

        // And nobody else has a slot.
        void expect_serves(const TestSocket& socket, long allocations) {
                ASSERT_EQ(registry_->registrations("web").size(), 1U) << allocations;
                ASSERT_EQ(registry_->registrations("web")[0].cookie, socket.cookie) << allocations;
                ASSERT_EQ(dataplane_->free_slots(), kSlots - 1) << allocations;
                ASSERT_EQ(ask(packet(Protocol::kTcp, "10.0.0.1", 80)).cookie, socket.cookie) << allocations;
        }

        Policy policy_;
        std::unique_ptr<Registry> registry_;
};

TEST_F(RegistryMemory, that_ends_in_a_hand_over_leaves_nothing_behind) {
        start();
        const auto first = make_socket(Protocol::kTcp, Family::kIpv4);
        ASSERT_TRUE(hand_over(first, -1));
        long needed = 0;
        {
                const auto other = make_socket(Protocol::kTcp, Family::kIpv4);
                for (; !hand_over(other, needed); needed++) {
                        ASSERT_NO_FATAL_FAILURE(expect_serves(first, needed));
                }
        }
        ASSERT_GE(needed, 5);
        ASSERT_TRUE(registry_->refresh("web"));
        const auto next = make_socket(Protocol::kTcp, Family::kIpv4);
        // More often than there are records for the sockets of services.
        for (int round = 0; round < 1200; round++) {
                for (long allocations = 0; allocations < needed; allocations++) {
                        ASSERT_FALSE(hand_over(next, allocations)) << "round " << round << ": " << allocations;
                }
        }
        ASSERT_NO_FATAL_FAILURE(expect_serves(first, needed));
        ASSERT_TRUE(hand_over(next, -1));
        EXPECT_EQ(ask(packet(Protocol::kTcp, "10.0.0.1", 80)).cookie, next.cookie);
}

// A name that only the kernel has would be the service's for the next broker, and its sockets would be nobody's.
TEST_F(RegistryMemory, that_ends_while_a_service_is_added_leaves_no_name_in_the_kernel_and_takes_no_id) {
        start();
        const std::string name = "a-service-whose-name-is-long";
        const OwnedFd names = pinned("names");
        const auto in_kernel = [&] {
                std::size_t count = 0;
                sb_name found{};
                for (ServiceId id = 0; bpf_map_lookup_elem(names.get(), &id, &found) == 0; id++) {
                        count += name == found.text ? 1 : 0;
                }
                return count;
        };
        long needed = 0;
        const auto add = [&](long allocations) {
                try {
                        const auto id =
                                test::with_memory_for(allocations, [&] { return dataplane_->add_service(name); });
                        EXPECT_TRUE(id) << id.error().text();
                        return true;
                } catch (const std::bad_alloc&) {
                        return false;
                }
        };
        for (; !add(needed); needed++) {
                ASSERT_EQ(in_kernel(), 0U) << needed;
        }
        ASSERT_GE(needed, 3);
        for (int round = 0; round < 100; round++) {  // more often than there are ids
                dataplane_->remove_service(*dataplane_->add_service(name));
                for (long allocations = 0; allocations < needed; allocations++) {
                        ASSERT_FALSE(add(allocations));
                }
        }
        EXPECT_TRUE(add(-1));
        EXPECT_EQ(in_kernel(), 1U);
}

// A policy whose rules the kernel has is the policy, whatever memory there is for what follows: services that it does
// not have go with their sockets, each of which is told, or stay for the next change; those that it has are there.
TEST_F(RegistryMemory, that_ends_when_the_rules_of_a_policy_are_in_force_makes_it_no_policy_of_before) {
        start();
        const Policy before = policy_;
        Policy after;
        Service& fresh = after.services.emplace_back();
        fresh.name = "a-service-whose-name-is-not-short";
        fresh.bindings = {{.prefix = *parse_prefix("10.0.1.0/24"), .protocol = Protocol::kTcp}};
        fresh.handover = Handover::kShare;
        long allocations = 0;
        for (bool whole = false; !whole; allocations++) {
                const auto old = make_socket(Protocol::kTcp, Family::kIpv4);
                ASSERT_TRUE(hand_over(old, -1));
                Registry::Change change;
                ASSERT_TRUE(registry_->begin_change(change, after, kAll));
                ASSERT_TRUE(registry_->install(change, after, {}));
                const auto removal = test::with_memory_for(allocations, [&] {
                        Removal gone;
                        (void)registry_->finish_change(change, after, kAll, gone);
                        return gone;
                });
                whole = !removal.error;
                ASSERT_EQ(removal.departures.size() + registry_->registrations("web").size(), 1U) << allocations;
                ASSERT_EQ(ask(packet(Protocol::kTcp, "10.0.0.1", 80)).cookie, 0U) << "no rule names it";
                // The service that came takes sockets.
                const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
                ASSERT_TRUE(hand_over_to(after.services[0], socket));
                ASSERT_EQ(ask(packet(Protocol::kTcp, "10.0.1.1", 80)).cookie, socket.cookie) << allocations;
                // And the next change leaves nothing behind.
                const auto again = registry_->set_policy(after, {});
                ASSERT_TRUE(again && !again->error);
                ASSERT_TRUE(registry_->distribution(after.services[0].name).share);
                ASSERT_TRUE(registry_->registrations("web").empty());
                ASSERT_EQ(dataplane_->free_slots(), kSlots - 1) << allocations;
                ASSERT_TRUE(registry_->set_policy(before, {}));
                ASSERT_EQ(dataplane_->free_slots(), kSlots) << allocations;
        }
        EXPECT_GE(allocations, 5);
}

TEST_F(RegistryMemory, that_ends_while_a_change_begins_leaves_no_service_behind) {
        start();
        Policy after = policy_;
        for (const char* name : {"another-service-with-a-long-name", "and-yet-another-one-with-a-long-name"}) {
                Service& service = after.services.emplace_back();
                service.name = name;
        }
        for (int round = 0; round < 20; round++) {  // more often than there are ids
                bool begun = false;
                for (long allocations = 0; !begun; allocations++) {
                        Registry::Change change;
                        try {
                                const auto all = test::with_memory_for(
                                        allocations, [&] { return registry_->begin_change(change, after, kAll); });
                                ASSERT_TRUE(all) << all.error().text();
                                begun = true;
                        } catch (const std::bad_alloc&) {
                        }
                        registry_->abandon_change(change);
                        ASSERT_EQ(std::ranges::count(dataplane_->service_names(), ""),
                                  static_cast<std::ptrdiff_t>(dataplane_->service_names().size() - 1))
                                << allocations;
                }
        }
}

// Sockets that have gone are told, though memory ends before all were looked at.
TEST_F(RegistryMemory, that_ends_while_sockets_go_loses_none_of_those_that_went) {
        start();
        Service& other = policy_.services.emplace_back();
        other.name = "zzz-a-service-whose-name-is-not-short";
        other.bindings = {{.prefix = *parse_prefix("10.0.1.0/24"), .protocol = Protocol::kTcp}};
        ASSERT_TRUE(registry_->set_policy(policy_, {}));
        const auto all = [](const std::string&, const Registration&) { return true; };
        Registry::Sweep sweep;
        const std::map<std::string, std::function<Removal()>> ways = {
                {"remove_all", [&] { return registry_->remove_all(all); }},
                {"refresh_all", [&] { return registry_->refresh_all(); }},
                {"refresh_some",
                 [&] { return registry_->refresh_some(sweep, std::chrono::steady_clock::now() + 1min); }},
        };
        for (const auto& [name, way] : ways) {
                bool some = false;
                long allocations = 0;
                for (bool whole = false; !whole; allocations++) {
                        sweep = {};
                        for (const auto& service : policy_.services) {
                                ASSERT_TRUE(hand_over_to(service, make_socket(Protocol::kTcp, Family::kIpv4)));
                        }
                        ASSERT_EQ(registry_->size(), 2U);  // closed meanwhile
                        std::size_t told = 0;
                        try {
                                const auto removal = test::with_memory_for(allocations, way);
                                told = removal.departures.size();
                                whole = !removal.error;
                                some = some || (!whole && told > 0);
                        } catch (const std::bad_alloc&) {
                        }
                        ASSERT_EQ(told + registry_->size(), 2U) << name << ": " << allocations;
                        ASSERT_EQ(dataplane_->free_slots(), kSlots - registry_->size()) << name << ": " << allocations;
                        ASSERT_FALSE(registry_->remove_all(all).error);
                }
                EXPECT_GE(allocations, 5) << name;
                EXPECT_TRUE(some) << name;
        }
}

// Between two turns the loop does other work: no service that has a socket is as the policy before had it then.
TEST_F(RegistryMemory, is_not_what_a_change_that_takes_turns_is_about) {
        open({.bindings = 16, .services = 16, .sockets = kSlots});
        registry_ = std::make_unique<Registry>(*dataplane_);
        registry_->take_up();
        const auto policy_of = [](std::initializer_list<const char*> names, Handover handover) {
                Policy policy;
                for (const char* name : names) {
                        Service& service = policy.services.emplace_back();
                        service.name = name;
                        service.handover = handover;
                }
                return policy;
        };
        const Policy before = policy_of({"a", "b", "goes", "stays", "z"}, Handover::kReplace);
        const Policy after = policy_of({"c", "d", "e", "stays", "z"}, Handover::kShare);
        ASSERT_TRUE(registry_->set_policy(before, {}));
        const auto one = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto other = make_socket(Protocol::kTcp, Family::kIpv4);
        ASSERT_TRUE(hand_over_to(before.services[2], one));
        ASSERT_TRUE(hand_over_to(before.services[3], other));
        Registry::Change change;
        int turns = 1;
        for (;; turns++) {
                const auto all = registry_->begin_change(change, after, 2);
                ASSERT_TRUE(all);
                if (*all) {
                        break;
                }
        }
        EXPECT_EQ(turns, 3) << "of five services";
        ASSERT_TRUE(registry_->install(change, after, {}));
        Removal removal;
        EXPECT_FALSE(registry_->finish_change(change, after, 0, removal));
        EXPECT_EQ(removal.departures.size(), 1U);
        EXPECT_TRUE(registry_->registrations("goes").empty());
        EXPECT_TRUE(registry_->distribution("stays").share);
        EXPECT_FALSE(registry_->distribution("z").share) << "no socket, so its turn comes later";
        EXPECT_EQ(dataplane_->free_slots(), kSlots - 1);
        for (turns = 1; !registry_->finish_change(change, after, 2, removal); turns++) {
        }
        EXPECT_EQ(turns, 4) << "of seven that are left";
        EXPECT_TRUE(registry_->distribution("z").share);
        EXPECT_FALSE(removal.error);
        std::set<std::string> names(dataplane_->service_names().begin(), dataplane_->service_names().end());
        EXPECT_EQ(names, (std::set<std::string>{"", "c", "d", "e", "stays", "z"}));
}

}  // namespace
}  // namespace sockbroker
