// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the broker and its routes meet: a policy that is taken, sockets that come and go, drain and undrain, and
// unload, which takes the announcements away before dispatch.
#include <fmt/format.h>

#include "broker/daemon/broker.h"
#include "broker/daemon/routes.h"

namespace sockbroker {

void Broker::use(Routes& routes) {
        routes_ = &routes;
        routes_->take(route_plan_);
}

void Broker::take_routes(std::shared_ptr<const RoutePlan> plan) {
        route_plan_ = std::move(plan);
        if (routes_ != nullptr) {
                routes_->take(route_plan_);
        }
}

void Broker::tell_routes(const std::string& service) {
        if (routes_ != nullptr) {
                routes_->look_at(service);
        }
}

void Broker::drain(const Request& request, const Peer& peer, const Reply& reply) {
        const std::string& service = request.service;
        const bool drain = request.verb == Verb::kDrain;
        const auto* found = policy_->find(service);
        // What was drained once can be undrained, also when policy has it no more.
        if (found == nullptr && (drain || routes_ == nullptr || !routes_->of(service).drained)) {
                return reply(refuse(
                        {ResultCode::kUnknownService, fmt::format("no policy names a service \"{}\"", service), {}},
                        peer, service));
        }
        if (peer.uid != 0) {
                return reply(refuse({ResultCode::kNotRoot, "only root may drain a service, or end that", {}}, peer,
                                    service));
        }
        const bool announces = found != nullptr && found->announce != Announce::kNo;
        auto message = drain ? fmt::format("{} is drained: {}", service,
                                           announces ? "it is not announced, and goes on serving"
                                                     : "it goes on serving; policy announces nothing for it")
                             : fmt::format("{} is not drained any more{}", service,
                                           announces ? ", and is announced while it is up" : "");
        audit_.write({.action = Action::kDrain,
                      .priority = 5,
                      .message = fmt::format("{}, asked by {}", message, peer.to_string()),
                      .service = service,
                      .result = std::string(to_string(ResultCode::kOk)),
                      .unit = peer.unit,
                      .has_peer = true,
                      .uid = peer.uid,
                      .pid = peer.pid});
        auto warnings = std::make_shared<std::vector<std::string>>();
        const auto kept = routes_->drain(service, drain, [this, message, warnings, reply](bool in_kernel) {
                if (!in_kernel) {
                        warnings->emplace_back("the routes in the kernel have not followed yet");
                        std::ranges::copy(routes_->warnings(), std::back_inserter(*warnings));
                }
                reply_with(reply, [&] { return Answer{.message = message, .warnings = *warnings}; });
        });
        if (!kept) {  // the answer may be on its way
                warnings->push_back(kept.error().text() + ", so the next broker will not know of it");
                note(3, warnings->back());
        }
}

void Broker::unload(const Peer& peer, const Reply& reply) {
        if (peer.uid != 0) {
                return reply(refuse({ResultCode::kNotRoot, "only root may take dispatch away", {}}, peer, {}));
        }
        if (routes_ == nullptr) {
                return reply(take_dispatch_away(peer, true));
        }
        routes_->withdraw_all([this, peer, reply](bool in_kernel) {
                reply_with(reply, [&] { return take_dispatch_away(peer, in_kernel); });
        });
}

Answer Broker::take_dispatch_away(const Peer& peer, bool withdrawn) {
        if (auto done = dataplane_->unload(); !done) {
                if (routes_ != nullptr) {
                        routes_->stay();
                }
                return refuse({ResultCode::kInternal, done.error().text(), {}}, peer, {});
        }
        audit_.write({.action = Action::kUnload,
                      .priority = 4,
                      .message = "dispatch was taken away, the broker ends",
                      .has_peer = true,
                      .uid = peer.uid,
                      .pid = peer.pid});
        Answer result{.message = "dispatch was taken away"};
        if (!withdrawn) {
                result.warnings.emplace_back(
                        "announced prefixes could not be withdrawn, ip route flush of their table does that");
        }
        result.unloaded = true;
        return result;
}

}  // namespace sockbroker
