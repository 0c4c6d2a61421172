// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A socket that a service has already and that another process inherits: who has it changes, and its place among the
// others does not.
#include <map>
#include <new>

#include "tests/netns/registry_fixture.h"
#include "tests/support/scarce_memory.h"

namespace sockbroker {
namespace {

class RegistryInherit : public RegistryTest {
protected:
        [[nodiscard]] std::vector<Registration> all(std::size_t i) const {
                const auto some = registry_->registrations(kNames[i]);
                return {some.begin(), some.end()};
        }
        // What the kernel has of each slot.
        [[nodiscard]] std::map<Slot, pid_t> owners() const {
                std::map<Slot, pid_t> owners;
                for (const auto& [slot, record] : dataplane_->registrants()) {
                        owners[slot] = record.pid;
                }
                return owners;
        }
        static Offer offer(const TestSocket& socket, Assignment serves, bool inherit) {
                SocketFacts facts;
                facts.cookie = socket.cookie;
                facts.protocol = socket.protocol;
                return {.fd = socket.fd.get(), .facts = facts, .serves = serves, .inherit = inherit};
        }
};

TEST_F(RegistryInherit, leaves_each_socket_where_it_stands) {
        start();
        for (int i = 0; i < 3; i++) {
                hand_over(0);
        }
        const auto before = all(0);
        const auto free = dataplane_->free_slots();
        for (std::size_t which = 0; which < 3; which++) {
                const auto done = commit(0, *models_[0].sockets[which].socket, true);
                ASSERT_TRUE(done) << done.error().message;
                EXPECT_TRUE(done->front().inherited);
                EXPECT_TRUE(done->front().displaced.empty()) << which;
                const auto after = all(0);
                ASSERT_EQ(after.size(), 3U);
                for (std::size_t i = 0; i < 3; i++) {
                        EXPECT_EQ(after[i].slot, before[i].slot);
                        EXPECT_EQ(after[i].cookie, before[i].cookie);
                        EXPECT_EQ(after[i].since_usec, before[i].since_usec);
                        EXPECT_EQ(after[i].registrant.pid, i <= which ? 3 : 1);
                        EXPECT_GE(after[i].registered_usec, before[i].registered_usec);
                        EXPECT_TRUE(i == 0 || is_before(after[i - 1], after[i])) << "strictly, as ever";
                }
                EXPECT_EQ(owners().at(after[which].slot), 3) << "the next broker knows it too";
                EXPECT_EQ(dataplane_->free_slots(), free);
                check("it was inherited");
        }
        start();
        EXPECT_EQ(all(0).front().registrant.pid, 3);
        hand_over(0);
        EXPECT_TRUE(is_before(all(0)[0], all(0)[1]));
        check("a new one came after it");
}

TEST_F(RegistryInherit, ends_a_hold_as_a_registration_does) {
        start();
        hand_over(0);
        hand_over(0);
        ASSERT_TRUE(registry_->set_hold_until(kNames[0], models_[0].sockets[0].socket->cookie, 7));
        hold_or_give_back(0, 0);
        check("the newest is held, and the one before serves");
        const auto done = commit(0, *models_[0].sockets[0].socket, true);
        ASSERT_TRUE(done) << done.error().message;
        models_[0].sockets[0].held = false;
        EXPECT_EQ(all(0)[0].gone_usec, 0);
        EXPECT_EQ(all(0)[0].hold_until_usec, 0);
        ASSERT_EQ(done->front().displaced.size(), 1U);
        EXPECT_EQ(done->front().displaced[0].cookie, models_[0].sockets[1].socket->cookie);
        check("it was inherited");
}

TEST_F(RegistryInherit, succeeds_no_held_socket) {
        start();
        hand_over(0);
        hand_over(0);
        hold_or_give_back(0, 0);
        inherit(0, 1);
        EXPECT_EQ(all(0).size(), 2U) << "the held one goes to the next instance";
        check("the displaced one was inherited");
}

TEST_F(RegistryInherit, leaves_the_families_that_it_serves) {
        start();
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto register_it = [&](bool ipv6, bool inherit) {
                const std::vector offers = {offer(socket, {.ipv4 = true, .ipv6 = ipv6}, inherit)};
                return registry_->commit(*policy_.find(kNames[0]), Peer{.pid = 5}, offers).has_value();
        };
        ASSERT_TRUE(register_it(false, false));
        ASSERT_TRUE(register_it(true, true));
        EXPECT_FALSE(all(0)[0].serves.ipv6);
        ASSERT_TRUE(register_it(true, false));
        EXPECT_TRUE(all(0)[0].serves.ipv6);
}

TEST_F(RegistryInherit, of_what_the_service_does_not_have_is_a_registration) {
        start();
        hand_over(0);
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        const auto done = commit(0, socket, true);
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_FALSE(done->front().inherited);
        EXPECT_EQ(done->front().displaced.size(), 1U);
        EXPECT_EQ(all(0)[0].cookie, socket.cookie);
}

// One message, one transaction: whatever ends it, no record says what is not so.
TEST_F(RegistryInherit, beside_a_new_socket_is_done_whole_or_not_at_all) {
        start();
        hand_over(kShared);
        const auto& old = *models_[kShared].sockets[0].socket;
        const auto fresh = make_socket(Protocol::kTcp, Family::kIpv4);
        const std::vector offers = {offer(old, {.ipv4 = true}, true), offer(fresh, {.ipv4 = true}, false)};
        const Peer peer{.pid = 9, .unit = "a-unit-whose-name-does-not-fit-into-a-short-string.service"};
        const auto before = owners();
        long allocations = 0;
        for (bool done = false; !done; allocations++) {
                try {
                        const auto handed = test::with_memory_for(allocations, [&] {
                                return registry_->commit(*policy_.find(kNames[kShared]), peer, offers);
                        });
                        ASSERT_TRUE(handed) << handed.error().message;
                        done = true;
                } catch (const std::bad_alloc&) {
                        ASSERT_EQ(owners(), before) << allocations;
                        ASSERT_EQ(all(kShared).size(), 1U);
                        ASSERT_EQ(all(kShared)[0].registrant.pid, 1);
                }
        }
        EXPECT_GE(allocations, 5);
        ASSERT_EQ(all(kShared).size(), 2U);
        EXPECT_EQ(all(kShared)[0].cookie, fresh.cookie) << "the newest";
        EXPECT_EQ(all(kShared)[1].cookie, old.cookie);
        EXPECT_EQ(all(kShared)[1].registrant.pid, 9);
}

}  // namespace
}  // namespace sockbroker
