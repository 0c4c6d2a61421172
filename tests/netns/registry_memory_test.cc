// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Memory that ends in the midst of a hand-over, or while a service is added, at each allocation in turn: what was not
// done to its end leaves no slot, record, id or name behind, and whoever served serves on.
#include <new>
#include <string>

#include "bpf/layout.h"
#include "broker/registry/registry.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/support/scarce_memory.h"

namespace sockbroker {
namespace {

constexpr std::uint32_t kSlots = 256;

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
                SocketFacts facts;
                facts.cookie = socket.cookie;
                const Offer offer{.fd = socket.fd.get(), .facts = facts, .serves = {.ipv4 = true}};
                const Peer peer{.pid = 1, .unit = "a-unit-whose-name-does-not-fit-into-a-short-string.service"};
                try {
                        const auto handed = test::with_memory_for(allocations, [&] {
                                return registry_->commit(policy_.services[0], peer, {&offer, 1});
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

}  // namespace
}  // namespace sockbroker
