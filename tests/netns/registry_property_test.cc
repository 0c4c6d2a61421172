// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Slots are used again and brokers die, yet no packet ever reaches a socket of another service: sockets are registered,
// inherited, closed, shut down, connected, held, given back, unregistered, brokers are lost, also in the midst of any
// of this, and policies reloaded in random order, beside a model of a few lines; the kernel is asked after each step.
#include <random>

#include "tests/netns/registry_fixture.h"

namespace sockbroker {
namespace {

using RegistryProperty = RegistryTest;

TEST_F(RegistryProperty, no_order_of_events_gives_one_services_traffic_to_another) {
        FaultPoints::here();  // before anything is mapped
        start();
        std::mt19937 random(20260101);
        const auto below = [&](unsigned bound) { return random() % bound; };
        for (int step = 0; step < 1200 && !HasFatalFailure(); step++) {
                const std::size_t i = below(kNames.size());
                const unsigned event = below(100);
                std::string what = "step " + std::to_string(step) + ": ";
                if (event < 40) {
                        what += "register";
                        if (models_[i].in_policy) {
                                hand_over(i);
                        }
                } else if (event < 45) {
                        what += "inherit";
                        inherit(i, below(kMaxSockets + 1));
                } else if (event < 60) {
                        what += "the service goes, or comes back";
                        hold_or_give_back(i, below(kMaxSockets + 1));
                } else if (event < 82) {
                        what += "close, shut down, or the end of a hold";
                        end_one(i, below(2) == 0, below(kMaxSockets + 1));
                } else if (event < 90) {
                        what += "liveness";
                        ASSERT_FALSE(registry_->refresh_all().error);
                        for (auto& model : models_) {
                                model.forget_dead();
                        }
                } else if (event < 94) {
                        what += "unregister";
                        ASSERT_TRUE(registry_->remove(kNames[i], [](const auto&, const auto&) { return true; }));
                        models_[i].sockets.clear();
                } else if (event < 95) {
                        what += "another broker";
                        start();
                        check_slots(what);
                } else if (event < 98) {
                        const unsigned change = 1 + below(16);
                        const auto dies = below(models_[i].in_policy ? 5 : 1);
                        what += "death before change " + std::to_string(change) + " of a " +
                                std::array{"reload", "hand-over", "removal", "hold", "inheritance"}[dies];
                        if (dies == 0) {
                                die_in_reload(i, change);
                        } else if (dies == 1) {
                                die_in_hand_over(i, change);
                        } else if (dies == 2) {
                                die_in_unregister(i, change);
                        } else {
                                die_in_hold(i, below(kMaxSockets + 1), change, dies == 4);
                        }
                        check_slots(what);
                } else {
                        what += "reload";
                        models_[i].in_policy = !models_[i].in_policy;
                        models_[i].sockets.clear();
                        load();
                }
                check(what);
        }
        EXPECT_GE(deaths_, 5) << "or the points of death were not met";
}

// A broker that dies between the steps of a transaction leaves a socket in a slot that nothing names.
TEST_F(RegistryProperty, what_was_never_switched_to_is_gone_after_the_next_start) {
        start();
        hand_over(0);
        const auto served = models_[0].expected();
        const auto orphan = make_socket(Protocol::kTcp, Family::kIpv4);
        const ServiceId id = add(kNames[0]);
        const auto slot = dataplane_->install(orphan.fd.get(), {.service = id,
                                                                .cookie = orphan.cookie,
                                                                .since_usec = INT64_MAX,
                                                                .protocol = Protocol::kTcp,
                                                                .serves_ipv4 = true});
        ASSERT_TRUE(slot);
        start();
        ASSERT_EQ(registry_->registrations(kNames[0]).size(), 1U);
        EXPECT_EQ(registry_->registrations(kNames[0])[0].cookie, served);
        EXPECT_FALSE(dataplane_->cookie(*slot)) << "it was taken out of its slot";
        check("the start");
}

// The same socket handed over again takes a new slot, and the broker dies before it gives up the old one.
TEST_F(RegistryProperty, a_socket_that_was_handed_over_again_stands_once_after_the_next_start) {
        start();
        hand_over(0);
        const auto& socket = *models_[0].sockets[0].socket;
        const ServiceId id = add(kNames[0]);
        const auto slot = dataplane_->install(socket.fd.get(), {.service = id,
                                                                .cookie = socket.cookie,
                                                                .since_usec = INT64_MAX,
                                                                .protocol = Protocol::kTcp,
                                                                .serves_ipv4 = true});
        ASSERT_TRUE(slot);
        Targets targets{};
        first(targets, Protocol::kTcp, Family::kIpv4) = *slot;
        ASSERT_TRUE(dataplane_->set_targets(id, targets));
        start();
        ASSERT_EQ(registry_->registrations(kNames[0]).size(), 1U);
        EXPECT_EQ(registry_->registrations(kNames[0])[0].slot, *slot);
        check("the start");
}

TEST_F(RegistryProperty, displaced_sockets_beyond_the_reserve_are_still_known_after_the_next_start) {
        start();
        for (int i = 0; i < 6; i++) {
                hand_over(0);
        }
        start();
        EXPECT_EQ(registry_->registrations(kNames[0]).size(), 6U);
        for (int i = 0; i < 5; i++) {
                end_one(0, false, static_cast<std::size_t>(i));
        }
        ASSERT_FALSE(registry_->refresh_all().error);
        models_[0].forget_dead();
        check("all but the oldest were closed");
        EXPECT_NE(models_[0].expected(), 0U);
}

}  // namespace
}  // namespace sockbroker
