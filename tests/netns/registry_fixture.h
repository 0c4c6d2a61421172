// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A registry over the real maps, beside a model of a few lines that says which socket each service is to have.
#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "broker/registry/registry.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/support/fault_points.h"

namespace sockbroker {

inline constexpr std::uint32_t kMaxSockets = 6;

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
        // Of a service that shares, any socket that lives; one that is held only if the broker knows no other.
        [[nodiscard]] bool allows(std::uint64_t cookie) const {
                const bool none_but_held = std::ranges::all_of(sockets, &Socket::held);
                const auto serves = [&](const Socket& one) { return one.alive && one.held <= none_but_held; };
                return !share        ? cookie == expected()
                       : cookie == 0 ? std::ranges::none_of(sockets, serves)
                                     : std::ranges::any_of(sockets, [&](const Socket& one) {
                                               return serves(one) && one.socket->cookie == cookie;
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

class RegistryTest : public DataplaneTest {
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

        std::expected<std::vector<CommitResult>, Refusal> commit(std::size_t i, const TestSocket& socket,
                                                                 bool inherit = false) {
                SocketFacts facts;
                facts.cookie = socket.cookie;
                facts.protocol = protocol_of(i);
                const Offer offer{.fd = socket.fd.get(), .facts = facts, .serves = {.ipv4 = true}, .inherit = inherit};
                return registry_->commit(*policy_.find(kNames[i]), Peer{.pid = inherit ? 3 : 1}, {&offer, 1});
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

        // Another process of the service has it from now on, and nothing else has changed.
        void inherit(std::size_t i, std::size_t which) {
                Model& model = models_[i];
                if (model.sockets.empty() || !model.sockets[which % model.sockets.size()].alive) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                const auto done = commit(i, *one.socket, true);
                ASSERT_TRUE(done) << done.error().message;
                ASSERT_TRUE(done->front().inherited);
                one.held = false;
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
        void die_in_hold(std::size_t i, std::size_t which, unsigned n, bool inherits = false) {
                Model& model = models_[i];
                if (model.sockets.empty() || !model.sockets[which % model.sockets.size()].alive) {
                        return;
                }
                auto& one = model.sockets[which % model.sockets.size()];
                dies_in(n, [&] {
                        if (inherits) {
                                (void)commit(i, *one.socket, true);
                        } else {
                                (void)(one.held ? registry_->give_back(kNames[i], one.socket->cookie, Peer{.pid = 2})
                                                : registry_->set_gone(kNames[i], one.socket->cookie, 1));
                        }
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

}  // namespace sockbroker
