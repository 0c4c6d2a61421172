// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Slots are used again and brokers die, yet no packet ever reaches a socket of another service: sockets are registered,
// closed, shut down, connected, held, given back, unregistered, brokers are lost, also in the midst of any of this, and
// policies reloaded in random order, beside a model of a few lines; the kernel is asked after each step.
#include <sys/wait.h>

#include <algorithm>
#include <random>

#include "broker/registry/registry.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/support/fault_points.h"

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
        bool share = false;
        std::vector<Socket> sockets;

        void forget_dead() {
                std::erase_if(sockets, [](const Socket& one) { return !one.alive; });
        }
        [[nodiscard]] std::size_t alive() const {
                return static_cast<std::size_t>(std::ranges::count_if(sockets, &Socket::alive));
        }
        // Of a service that shares, any socket that lives; one that is held only if there is no other.
        [[nodiscard]] bool allows(std::uint64_t cookie) const {
                const bool none_but_held =
                        std::ranges::none_of(sockets, [](const Socket& one) { return one.alive && !one.held; });
                return !share ? cookie == expected()
                       : cookie == 0
                               ? alive() == 0
                               : std::ranges::any_of(sockets, [&](const Socket& one) {
                                         return one.alive && one.held <= none_but_held && one.socket->cookie == cookie;
                                 });
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
        static constexpr std::array kNames = {"a", "b", "c", "d", "e"};
        static constexpr std::size_t kUdp = 3;     // the service with datagram sockets
        static constexpr std::size_t kShared = 4;  // the one whose sockets share

        static Protocol protocol_of(std::size_t i) { return i == kUdp ? Protocol::kUdp : Protocol::kTcp; }

        void start() {
                // Few slots, so that they are used again all the time.
                open({.bindings = 64, .services = kNames.size(), .sockets = 30});
                registry_ = std::make_unique<Registry>(*dataplane_);
                registry_->take_up();
                load();
        }

        void load() {
                write_policy();
                const auto done = registry_->set_policy(policy_, {});
                ASSERT_TRUE(done) << done.error().text();
        }

        void write_policy() {
                policy_ = {};
                models_[kShared].share = true;
                for (std::size_t i = 0; i < kNames.size(); i++) {
                        if (!models_[i].in_policy) {
                                continue;
                        }
                        Service& service = policy_.services.emplace_back();
                        service.name = kNames[i];
                        service.max_sockets = kMaxSockets;
                        service.bindings = {{.prefix = *parse_prefix("10.0." + std::to_string(i) + ".0/24"),
                                             .protocol = protocol_of(i)}};
                        service.handover = i == kShared ? Handover::kShare : Handover::kReplace;
                }
        }

        void refresh(std::size_t i) {
                const auto refreshed = registry_->refresh(kNames[i]);
                ASSERT_TRUE(refreshed) << refreshed.error().text();
                models_[i].forget_dead();
        }

        void hand_over(std::size_t i) {
                refresh(i);
                if (is_full(i)) {
                        return;
                }
                auto socket = std::make_shared<TestSocket>(make_socket(protocol_of(i), Family::kIpv4));
                const auto handed = commit(i, *socket);
                ASSERT_TRUE(handed) << handed.error().message;
                std::erase_if(models_[i].sockets, [](const Model::Socket& one) { return one.held; });
                model_has(i, std::move(socket));
        }

        // Of those that share all are live: the quota, which is not the registry's matter.
        [[nodiscard]] bool is_full(std::size_t i) const {
                return i == kShared && models_[i].sockets.size() >= kMaxSockets;
        }

        std::expected<std::vector<CommitResult>, Refusal> commit(std::size_t i, const TestSocket& socket) {
                SocketFacts facts;
                facts.cookie = socket.cookie;
                facts.protocol = protocol_of(i);
                const Offer offer{.fd = socket.fd.get(), .facts = facts, .serves = {.ipv4 = true}};
                return registry_->commit(*policy_.find(kNames[i]), Peer{.pid = 1}, {&offer, 1});
        }

        void model_has(std::size_t i, std::shared_ptr<TestSocket> socket) {
                Model& model = models_[i];
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

        // A broker that dies before its n-th change, counted from now; false: it was through before that.
        template <class Work>
        bool dies_in(unsigned n, Work work) {
                auto& points = FaultPoints::here();
                points.count = 0;
                points.kill_at = n;
                const pid_t child = fork();
                if (child == 0) {
                        points.armed = 1;
                        work();
                        _exit(0);
                }
                int status = 0;
                EXPECT_EQ(waitpid(child, &status, 0), child);
                points.armed = 0;
                EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0) << status;
                deaths_ += WIFSIGNALED(status) ? 1 : 0;
                return WIFSIGNALED(status);
        }

        // What the kernel answers decides which of the two it is; then the next broker must agree.
        void die_in_hand_over(std::size_t i, unsigned n) {
                refresh(i);
                if (is_full(i)) {
                        return;
                }
                auto socket = std::make_shared<TestSocket>(make_socket(protocol_of(i), Family::kIpv4));
                dies_in(n, [&] { (void)commit(i, *socket); });
                start();
                const auto all = registry_->registrations(kNames[i]);
                const auto known = [&](std::uint64_t cookie) {
                        return std::ranges::find(all, cookie, &Registration::cookie) != all.end();
                };
                // Between the switch and the end a held one that was succeeded is still there, behind the new one.
                std::erase_if(models_[i].sockets,
                              [&](const Model::Socket& one) { return one.held && !known(one.socket->cookie); });
                if (known(socket->cookie)) {
                        model_has(i, std::move(socket));
                }
        }

        // The record is the truth: targets that do not say the same yet are mended by the next broker.
        void die_in_hold(std::size_t i, std::size_t which, unsigned n) {
                Model& model = models_[i];
                if (model.sockets.empty() || !model.sockets[which % model.sockets.size()].alive) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                dies_in(n, [&] {
                        (void)(one.held ? registry_->give_back(kNames[i], one.socket->cookie, Peer{.pid = 2})
                                        : registry_->set_gone(kNames[i], one.socket->cookie, 1));
                });
                start();
                const auto all = registry_->registrations(kNames[i]);
                const auto found = std::ranges::find(all, one.socket->cookie, &Registration::cookie);
                ASSERT_NE(found, all.end());
                one.held = found->held();
        }

        void die_in_unregister(std::size_t i, unsigned n) {
                dies_in(n, [&] { (void)registry_->remove(kNames[i], [](const auto&, const auto&) { return true; }); });
                start();
                if (registry_->registrations(kNames[i]).empty()) {
                        models_[i].sockets.clear();
                }
        }

        // The next broker reads the policy that this one was told of.
        void die_in_reload(std::size_t i, unsigned n) {
                models_[i].in_policy = !models_[i].in_policy;
                models_[i].sockets.clear();
                write_policy();
                dies_in(n, [&] { (void)registry_->set_policy(policy_, {}); });
                start();
        }

        void end_one(std::size_t i, bool by_shutdown, std::size_t which) {
                Model& model = models_[i];
                if (model.sockets.empty()) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                if (by_shutdown && one.alive && one.socket->protocol == Protocol::kTcp) {
                        ASSERT_EQ(shutdown(one.socket->fd.get(), SHUT_RD), 0);
                } else if (by_shutdown && one.alive) {
                        const sockaddr_in peer{
                                .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
                        ASSERT_EQ(connect(one.socket->fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer),
                                  0);
                } else {
                        one.socket->fd.reset();
                }
                one.alive = false;
        }

        void check(const std::string& after) {
                for (std::size_t i = 0; i < kNames.size(); i++) {
                        const auto to = "10.0." + std::to_string(i) + ".7";
                        const Reply reply = ask(packet(protocol_of(i), to, 80));
                        const bool right = models_[i].in_policy ? models_[i].allows(reply.cookie) : reply.cookie == 0;
                        ASSERT_TRUE(right) << "service " << kNames[i] << " has " << reply.cookie << " after " << after;
                        ASSERT_EQ(reply.passed, reply.cookie != 0 || !models_[i].in_policy)
                                << "service " << kNames[i] << " after " << after;
                }
        }

        // After a start: what the registry knows is what the model has, and no slot is taken for anything else.
        void check_slots(const std::string& after) {
                ASSERT_FALSE(registry_->refresh_all().error);
                std::size_t sockets = 0;
                for (std::size_t i = 0; i < kNames.size(); i++) {
                        models_[i].forget_dead();
                        sockets += models_[i].sockets.size();
                        ASSERT_EQ(registry_->registrations(kNames[i]).size(), models_[i].sockets.size())
                                << "service " << kNames[i] << " after " << after;
                }
                ASSERT_EQ(dataplane_->free_slots(), dataplane_->capacity().sockets - sockets) << "after " << after;
        }

        std::array<Model, kNames.size()> models_;
        Policy policy_;
        std::unique_ptr<Registry> registry_;
        int deaths_ = 0;
};

TEST_F(RegistryProperty, no_order_of_events_gives_one_services_traffic_to_another) {
        FaultPoints::here();  // before anything is mapped
        start();
        std::mt19937 random(20260101);
        const auto below = [&](unsigned bound) { return random() % bound; };
        for (int step = 0; step < 1200 && !HasFatalFailure(); step++) {
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
                        const auto dies = below(models_[i].in_policy ? 4 : 1);
                        what += "death before change " + std::to_string(change) + " of a " +
                                std::array{"reload", "hand-over", "removal", "hold"}[dies];
                        if (dies == 0) {
                                die_in_reload(i, change);
                        } else if (dies == 1) {
                                die_in_hand_over(i, change);
                        } else if (dies == 2) {
                                die_in_unregister(i, change);
                        } else {
                                die_in_hold(i, below(kMaxSockets + 1), change);
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
