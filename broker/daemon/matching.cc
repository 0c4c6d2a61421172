// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/matching.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "broker/base/json_text.h"
#include "broker/policy/takers.h"

namespace sockbroker {

namespace {

// Beyond that many, nobody can mean them all: a name is asked for.
constexpr std::size_t kMaxAsked = 64;

// {service, protocol, prefix, ports, handover, hold_usec, reuse_port, file, line}
std::string taker_line(const Policy& policy, const Taker& taker) {
        const auto& binding = *taker.binding;
        const auto ports = binding.ports.to_string();
        return JsonText({
                                {"service", taker.service->name},
                                {"protocol", to_string(binding.protocol)},
                                {"prefix", binding.bare ? JsonText(nullptr) : JsonText(binding.prefix.to_string())},
                                {"ports", ports == "*" ? JsonText(nullptr) : JsonText(ports)},
                                {"handover", to_string(taker.service->handover)},
                                {"hold_usec", taker.service->hold_usec},
                                {"reuse_port", taker.service->reuse_port},
                                {"file", policy.files[binding.where.file]},
                                {"line", binding.where.line},
                        })
                       .text() +
               "\n";
}

// A socket as it would be, for the question whether another one is in its place.
SocketFacts facts_of(const WantedBind& bind) {
        SocketFacts facts;
        facts.protocol = bind.protocol;
        facts.family = bind.at.address.family == Family::kIpv4 ? SocketFamily::kIpv4 : SocketFamily::kIpv6;
        facts.bound = bind.at;
        return facts;
}

}  // namespace

struct Matching::Match {
        std::shared_ptr<const Policy> policy;  // the candidates are of it
        WantedBind bind;
        Peer peer;
        Reply reply;
        std::vector<Taker> candidates;
        std::size_t next = 0;
        std::vector<Taker> admitted;  // all of one rank
        std::string turned_away;      // what the best of the others said
};

void Matching::match(const WantedBind& bind, const Peer& peer, const Reply& reply) {
        if (const auto refusal = unknown_names(*policy_, bind)) {
                return reply(refusals_.refuse(*refusal, peer, bind.services.size() == 1 ? bind.services.front() : ""));
        }
        auto one =
                std::make_shared<Match>(Match{.policy = policy_.shared(), .bind = bind, .peer = peer, .reply = reply});
        one->candidates = takers(*policy_, bind, peer);
        if (one->candidates.empty() && bind.services.empty()) {
                if (const auto* other = find_binder(*policy_, bind); other != nullptr && !may_admit(*other, peer)) {
                        one->turned_away = admit(*policy_, peer, other->name, {}).error().message;
                }
        }
        // Of those named that cannot admit the first says so, whatever it has bound.
        for (const auto& name : bind.services) {
                if (const auto* service = policy_->find(name); one->turned_away.empty() && !may_admit(*service, peer)) {
                        one->turned_away = admit(*policy_, peer, name, {}).error().message;
                }
        }
        next(one);
}

void Matching::next(const std::shared_ptr<Match>& match) {
        while (match->next < match->candidates.size()) {
                const Taker& taker = match->candidates[match->next];
                if (!match->admitted.empty() &&
                    (match->admitted.front().rank != taker.rank || match->admitted.size() > 1)) {
                        break;
                }
                const auto& name = taker.service->name;
                // Without a name of an account there is nothing to wait for.
                if (names_that_matter(*match->policy, match->peer, name).empty()) {
                        const auto verdict = admit(*match->policy, match->peer, name, {});
                        if (verdict) {
                                match->admitted.push_back(taker);
                        } else if (match->turned_away.empty()) {
                                match->turned_away = verdict.error().message;
                        }
                        match->next++;
                        continue;
                }
                if (match->next >= kMaxAsked) {
                        match->turned_away = "too many services have such a binding, name one with FDNAME=";
                        break;
                }
                return admissions_.judge(name, match->peer, 0, [this, match](const Admissions::Verdict& verdict) {
                        or_fail(match->reply, [&] {
                                if (!verdict && verdict.error().code == ResultCode::kRateLimited) {
                                        return match->reply(refusals_.refuse(verdict.error(), match->peer, {}));
                                }
                                if (verdict) {
                                        match->admitted.push_back(match->candidates[match->next]);
                                } else if (match->turned_away.empty()) {
                                        match->turned_away = verdict.error().message;
                                }
                                match->next++;
                                next(match);
                        });
                });
        }
        match->reply(end(*match));
}

Answer Matching::end(const Match& match) {
        if (match.admitted.empty()) {
                const auto& named = match.bind.services;
                const auto instead = what_is_admitted(*match.policy, match.bind, match.peer, names_.last_known());
                return refusals_.refuse(no_taker(match.bind, instead, match.turned_away), match.peer,
                                        named.size() == 1 ? named.front() : "");
        }
        if (match.admitted.size() > 1) {
                std::vector<std::string> names;
                names.reserve(match.admitted.size());
                for (const auto& taker : match.admitted) {
                        names.push_back(taker.service->name);
                }
                return refusals_.refuse(too_many_takers(match.bind, names), match.peer, {});
        }
        const Taker& taker = match.admitted.front();
        const Service& service = *taker.service;
        if (service.handover == Handover::kRefuse) {
                departures_.gone(registry_.refresh(service.name));
                const std::vector<SocketFacts> facts{facts_of(match.bind)};
                const std::vector<Assignment> serves{{.ipv4 = facts[0].family == SocketFamily::kIpv4,
                                                      .ipv6 = facts[0].family == SocketFamily::kIpv6}};
                const std::vector<Offer> offers{{.fd = -1, .facts = facts[0], .serves = serves[0]}};
                const auto busy = check_occupancy(*match.policy, service, facts, serves,
                                                  registry_.occupancy(service.name, match.peer, offers));
                if (busy && busy->code == ResultCode::kBusy) {
                        return refusals_.refuse(*busy, match.peer, service.name);
                }
        }
        auto rows = rows_of_lines(taker_line(*match.policy, taker));
        return {.message = fmt::format("{} takes it", service.name), .rows = std::move(rows)};
}

}  // namespace sockbroker
