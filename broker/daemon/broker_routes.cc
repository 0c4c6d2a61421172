// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What takes announcements away: drain and undrain, and unload, which does so before it takes dispatch away.
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/broker.h"
#include "broker/daemon/entries.h"

namespace sockbroker {

void Broker::drain(const Request& request, const Peer& peer, const Reply& reply) {
        const std::string& service = request.service;
        const bool drain = request.verb == Verb::kDrain;
        const auto* found = policy_->find(service);
        // What was drained once can be undrained, also when policy has it no more.
        if (found == nullptr && (drain || !routes_.of(service).drained)) {
                return reply(refusals_.refuse_unknown(service, peer));
        }
        if (peer.uid != 0) {
                return reply(refusals_.refuse({ResultCode::kNotRoot, "only root may drain a service, or end that", {}},
                                              peer, service));
        }
        const bool announces = found != nullptr && found->announce != Announce::kNo;
        auto message = drain ? fmt::format("{} is drained: {}", service,
                                           announces ? "it is not announced, and goes on serving"
                                                     : "it goes on serving; policy announces nothing for it")
                             : fmt::format("{} is not drained any more{}", service,
                                           announces ? ", and is announced while it is up" : "");
        const auto unfinished = fmt::format("{} is {}, but its routes in the kernel are still those of before", service,
                                            drain ? "drained" : "not drained any more");
        Entry entry =
                entry_by(peer, Action::kDrain, 5, service, fmt::format("{}, asked by {}", message, peer.to_string()));
        entry.result = to_string(ResultCode::kOk);
        audit_.write(std::move(entry));
        routes_.drain(service, drain, [=, this](bool in_kernel, const Result<void>& kept) {
                const bool done = in_kernel || !announces;
                std::vector<std::string> warnings;
                if (!kept) {
                        warnings.push_back(kept.error().text() + ", so the next broker may not know of it");
                }
                if (!done) {
                        warnings.emplace_back("the routes in the kernel have not followed yet");
                        std::ranges::copy(routes_.warnings(), std::back_inserter(warnings));
                }
                reply_with(reply, [&] { return Answer{.message = done ? message : unfinished, .warnings = warnings}; });
        });
}

void Broker::unload(const Peer& peer, const Reply& reply) {
        routes_.withdraw_all([this, peer, reply](bool in_kernel) {
                reply_with(reply, [&] { return take_dispatch_away(peer, in_kernel); });
        });
}

Answer Broker::take_dispatch_away(const Peer& peer, bool withdrawn) {
        if (auto done = dataplane_->unload(); !done) {
                routes_.stay();
                return refusals_.refuse({ResultCode::kInternal, done.error().text(), {}}, peer, {});
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
