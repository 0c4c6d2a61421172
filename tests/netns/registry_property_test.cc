// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Slots are used again and brokers die, yet no packet ever reaches a socket of another service: sockets are registered,
// closed, shut down, held, given back, unregistered, brokers are lost and policies reloaded in random order, beside a
// model of a few lines; the kernel is asked after each step.
#include <algorithm>
#include <random>

#include "broker/registry/registry.h"
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

constexpr std::uint32_t kMaxSockets = 6;

// What a service has, newest first, as the broker knew at its last look.
struct Model {
        struct Socket {
                std::shared_ptr<TestSocket> socket;
                bool alive = true;
                bool held = false;  // its service is gone, the descriptor is the broker's
        };
        bool in_policy = true;
        std::vector<Socket> sockets;

        void forget_dead() {
                std::erase_if(sockets, [](const Socket& one) { return !one.alive; });
        }
        // Those that are held stand behind all others. The kernel tries no more than the reserve holds.
        [[nodiscard]] std::uint64_t expected() const {
                auto order = sockets;
                std::ranges::stable_partition(order, [](const Socket& one) { return !one.held; });
                for (std::size_t i = 0; i < std::min(order.size(), kReserveDepth); i++) {
                        if (order[i].alive) {
                                return order[i].socket->cookie;
                        }
                }
                return 0;
        }
};

class RegistryProperty : public DataplaneTest {
protected:
        static constexpr std::array kNames = {"a", "b", "c", "d"};

        void start() {
                // Few slots, so that they are used again all the time.
                open({.bindings = 64, .services = 4, .sockets = 24});
                registry_ = std::make_unique<Registry>(*dataplane_);
                registry_->take_up();
                load();
        }

        void load() {
                policy_ = {};
                for (std::size_t i = 0; i < kNames.size(); i++) {
                        if (!models_[i].in_policy) {
                                continue;
                        }
                        Service& service = policy_.services.emplace_back();
                        service.name = kNames[i];
                        service.max_sockets = kMaxSockets;
                        service.bindings = {{.prefix = *parse_prefix("10.0." + std::to_string(i) + ".0/24"),
                                             .protocol = Protocol::kTcp}};
                }
                const auto done = registry_->set_policy(policy_, {});
                ASSERT_TRUE(done) << done.error().text();
        }

        void hand_over(std::size_t i) {
                Model& model = models_[i];
                const auto refreshed = registry_->refresh(kNames[i]);
                ASSERT_TRUE(refreshed) << refreshed.error().text();
                model.forget_dead();
                auto socket = std::make_shared<TestSocket>(make_socket(Protocol::kTcp, Family::kIpv4));
                SocketFacts facts;
                facts.cookie = socket->cookie;
                const Offer offer{.fd = socket->fd.get(), .facts = facts, .serves = {.ipv4 = true}};
                const auto handed = registry_->commit(*policy_.find(kNames[i]), Peer{.pid = 1}, {&offer, 1});
                ASSERT_TRUE(handed) << handed.error().message;
                std::erase_if(model.sockets, [](const Model::Socket& one) { return one.held; });
                model.sockets.insert(model.sockets.begin(), {std::move(socket), true});
                if (model.sockets.size() > kMaxSockets + 1) {  // one is live, the others drain
                        model.sockets.resize(kMaxSockets + 1);
                }
        }

        // Its service goes, or, held already, the next instance has it back.
        void hold_or_give_back(std::size_t i, std::size_t which) {
                Model& model = models_[i];
                if (model.sockets.empty()) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                if (!one.alive) {
                        return;
                }
                const auto done = one.held ? registry_->give_back(kNames[i], one.socket->cookie, Peer{.pid = 2})
                                           : registry_->set_gone(kNames[i], one.socket->cookie, 1);
                ASSERT_TRUE(done) << done.error().text();
                one.held = !one.held;
        }

        void end_one(std::size_t i, bool by_shutdown, std::size_t which) {
                Model& model = models_[i];
                if (model.sockets.empty()) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                if (by_shutdown && one.alive) {
                        ASSERT_EQ(shutdown(one.socket->fd.get(), SHUT_RD), 0);
                } else {
                        one.socket->fd.reset();
                }
                one.alive = false;
        }

        void check(const std::string& after) {
                for (std::size_t i = 0; i < kNames.size(); i++) {
                        const auto to = "10.0." + std::to_string(i) + ".7";
                        const Reply reply = ask(packet(Protocol::kTcp, to, 80));
                        const auto expected = models_[i].in_policy ? models_[i].expected() : 0;
                        ASSERT_EQ(reply.cookie, expected) << "service " << kNames[i] << " after " << after;
                        ASSERT_EQ(reply.passed, expected != 0 || !models_[i].in_policy)
                                << "service " << kNames[i] << " after " << after;
                }
        }

        std::array<Model, kNames.size()> models_;
        Policy policy_;
        std::unique_ptr<Registry> registry_;
};

TEST_F(RegistryProperty, no_order_of_events_gives_one_services_traffic_to_another) {
        start();
        std::mt19937 random(20260101);
        const auto below = [&](unsigned bound) { return random() % bound; };
        for (int step = 0; step < 1500 && !HasFatalFailure(); step++) {
                const std::size_t i = below(kNames.size());
                const unsigned event = below(100);
                std::string what = "step " + std::to_string(step) + ": ";
                if (event < 45) {
                        what += "register";
                        if (models_[i].in_policy) {
                                hand_over(i);
                        }
                } else if (event < 60) {
                        what += "the service goes, or comes back";
                        hold_or_give_back(i, below(kMaxSockets + 1));
                } else if (event < 82) {
                        what += "close, shut down, or the end of a hold";
                        end_one(i, below(2) == 0, below(kMaxSockets + 1));
                } else if (event < 90) {
                        what += "liveness";
                        ASSERT_TRUE(registry_->refresh_all());
                        for (auto& model : models_) {
                                model.forget_dead();
                        }
                } else if (event < 94) {
                        what += "unregister";
                        ASSERT_TRUE(registry_->remove(kNames[i], [](const auto&, const auto&) { return true; }));
                        models_[i].sockets.clear();
                } else if (event < 97) {
                        what += "another broker";
                        start();
                } else {
                        what += "reload";
                        models_[i].in_policy = !models_[i].in_policy;
                        models_[i].sockets.clear();
                        load();
                }
                check(what);
        }
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
        ASSERT_TRUE(registry_->refresh_all());
        models_[0].forget_dead();
        check("all but the oldest were closed");
        EXPECT_NE(models_[0].expected(), 0U);
}

}  // namespace
}  // namespace sockbroker
