// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/broker.h"
#include "broker/daemon/event.h"
#include "broker/daemon/holds.h"
#include "broker/daemon/migration.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include <fmt/format.h>

namespace sockbroker {

namespace {

std::int64_t now_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

// Whose unit was not looked up yet, and who has none: both without one.
std::string name_of(const Peer& peer) {
        if (peer.pid == 0) {
                return "a sender without credentials";
        }
        const auto who = fmt::format("pid {}, uid {}", peer.pid, peer.uid);
        return peer.unit.empty() ? who : fmt::format("unit {}, {}", peer.unit, who);
}

Answer answer(ResultCode code, std::string message, Rows rows = {}) {
        return Answer{.code = code, .message = std::move(message), .rows = std::move(rows)};
}

}  // namespace

Broker::Broker(DaemonOptions options, const BrokerConfig& config, std::unique_ptr<Dataplane> dataplane, Audit& audit,
               Names& names)
        : options_(std::move(options)),
          folders_(options_.config_dirs),
          limits_(config.limits),
          dataplane_(std::move(dataplane)),
          audit_(audit),
          registry_(*dataplane_),
          flows_(*dataplane_),
          replies_(dataplane_->unit_programs()),
          names_(names),
          admissions_(names, [this] { return policy_; }),
          no_socket_(*dataplane_, monitors_),
          notify_rates_({config.rate_interval_usec, config.notify_burst}),
          uid_rates_({config.rate_interval_usec, config.rate_burst}),
          service_rates_({config.rate_interval_usec, config.rate_burst}),
          started_usec_(now_usec()) {
        // Where the maps could not be made larger.
        limits_.max_bindings = std::min(limits_.max_bindings, dataplane_->capacity().bindings);
        limits_.max_accounted = std::min(limits_.max_accounted, dataplane_->capacity().accounted);
        limits_.max_services = std::min(limits_.max_services, dataplane_->capacity().services);
        audit_.tap([this](const Entry& entry) { monitors_.tell(entry); });
}

Broker::~Broker() {
        audit_.tap({});
}

Result<std::unique_ptr<Broker>> Broker::start(DaemonOptions options, const BrokerConfig& config,
                                              std::unique_ptr<Dataplane> dataplane, Audit& audit, Names& names,
                                              std::uint64_t netns_cookie) {
        std::unique_ptr<Broker> broker(new Broker(std::move(options), config, std::move(dataplane), audit, names));
        broker->netns_cookie_ = netns_cookie;
        broker->registry_.take_up();
        broker->load_at_start();
        broker->probe_liveness();
        audit.write({.action = Action::kStart, .message = broker->status_text()});
        return broker;
}

void Broker::probe_liveness() {
        tell_departures(registry_.refresh_all(), Action::kGone, kGoneWhy);
}

bool Broker::probe_some() {
        if (no_socket_.sample(*policy_, steady_usec())) {
                return true;
        }
        flows_.sweep_if_due(steady_usec());
        replies_.sweep_if_due(steady_usec());
        constexpr auto kTimePerTurn = std::chrono::milliseconds(2);
        tell_departures(registry_.refresh_some(sweep_, std::chrono::steady_clock::now() + kTimePerTurn), Action::kGone,
                        kGoneWhy);
        return !sweep_.done;
}

void Broker::handle(Channel channel, const IncomingPtr& message, const Reply& reply) {
        try {
                handle_message(channel, message, reply);
        } catch (const std::exception& error) {
                // Memory, in the first place: it costs this peer its request and nobody else.
                reply(answer(ResultCode::kInternal, error.what()));
        }
}

void Broker::handle_message(Channel channel, const IncomingPtr& message, const Reply& reply) {
        const Peer peer = claimed_by(*message);
        if (channel == Channel::kNotify) {
                if (const auto& refusal = rate_of(channel, *message)) {
                        return reply(refuse(*refusal, peer, {}));
                }
        }
        if (const auto& refusal = message->not_taken) {
                return reply(refuse(*refusal, peer, {}));
        }
        if (message->truncated) {
                return reply(refuse(refuse_truncated(), peer, {}));
        }
        if (message->malformed) {
                return reply(refuse(*message->malformed, peer, {}));
        }
        const auto request = parse_request(channel, message->text, message->count);
        if (!request) {
                return reply(refuse(request.error(), peer, {}));
        }
        switch (request->verb) {
        case Verb::kNothing:
                return reply({});
        case Verb::kBarrier:
                return reply(answer(ResultCode::kOk, "all earlier messages were handled"));
        case Verb::kStatus:
                return reply(answer(ResultCode::kOk, status_text(), status_rows()));
        case Verb::kList:
                return reply(answer(ResultCode::kOk, "", list_rows()));
        case Verb::kBindings:
                return reply(answer(ResultCode::kOk, "", binding_rows(false)));
        case Verb::kCounted:
                return reply(answer(ResultCode::kOk, "", binding_rows(true)));
        case Verb::kVersion:
                return reply(answer(
                        ResultCode::kOk, "sockbroker " SOCKBROKER_VERSION,
                        rows_of_lines(fmt::format("{{\"version\":\"{}\",\"layout\":{},\"netns\":\"{:x}\"}}\n",
                                                  SOCKBROKER_VERSION, Dataplane::layout_version(), netns_cookie_))));
        default:
                break;
        }
        if (channel == Channel::kControl) {
                if (const auto& refusal = rate_of(channel, *message)) {
                        return reply(refuse(*refusal, peer, request->service));
                }
        }
        if (request->verb == Verb::kExplain) {
                return reply(explain(*request));
        }
        const auto& identified = sender_of(*message, *request);
        if (!identified) {
                Answer refused = refuse(identified.error(), peer, request->service);
                refused.cause = message->pid_not_believed ? "PID" : "";
                return reply(std::move(refused));
        }
        switch (request->verb) {
        case Verb::kStore:
                return when_judged(
                        *message, request->service, *identified,
                        request->migrate ? with_migration(reply, dataplane_->migration_program()) : reply,
                        [this, message](const Admission& admission, const Peer& admitted, const Reply& answered) {
                                message->settled = true;
                                answered(store(admission, *message, admitted));
                        });
        case Verb::kRemove:
        case Verb::kUnregister:
                return remove(*request, *identified, reply);
        case Verb::kReload:
                if (identified->uid != 0) {
                        return reply(
                                refuse({ResultCode::kNotRoot, "only root may reload the policy", {}}, *identified, {}));
                }
                return reload(reply, static_cast<std::int64_t>(request->timeout_usec));
        case Verb::kDiff:
        case Verb::kKeep:
                if (identified->uid != 0) {
                        return reply(refuse({ResultCode::kNotRoot, "only root may compare or keep policies", {}},
                                            *identified, {}));
                }
                return request->verb == Verb::kDiff ? diff(reply) : keep(reply);
        case Verb::kUnload:
                return unload(*identified, reply);
        case Verb::kDrain:
        case Verb::kUndrain:
                return drain(*request, *identified, reply);
        case Verb::kMonitor:
                return reply(monitor(*identified));
        case Verb::kMatch:
                return match(request->bind, *identified, reply);
        case Verb::kPrepare:
                return prepare(*request, *identified, reply);
        case Verb::kHold:
                return reply(hold_over_stop(*request, *identified));
        default:
                return retrieve(*request, *identified, *message, reply);
        }
}

void Broker::act_on(const Admissions::Verdict& verdict, const std::string& service, const Peer& peer,
                    const Reply& reply, const Act& act) {
        try {
                if (!verdict) {
                        return reply(refuse(verdict.error(), peer, service));
                }
                Peer admitted = peer;
                admitted.user_name = verdict->user;
                admitted.group_name = verdict->group;
                act(*verdict, admitted, reply);
        } catch (const std::exception& error) {  // as in handle(), which may have returned
                reply(answer(ResultCode::kInternal, error.what()));
        }
}

void Broker::when_admitted(const std::string& service, const Peer& peer, std::size_t descriptors, const Reply& reply,
                           const Act& act) {
        admissions_.judge(service, peer, descriptors, [=, this](const Admissions::Verdict& verdict) {
                act_on(verdict, service, peer, reply, act);
        });
}

// The same for a message that was judged before its descriptors were taken.
void Broker::when_judged(const Incoming& message, const std::string& service, const Peer& peer, const Reply& reply,
                         const Act& act) {
        if (message.verdict && message.judged_by == policy_) {
                return act_on(*message.verdict, service, peer, reply, act);
        }
        when_admitted(service, peer, message.count, reply, act);
}

Answer Broker::refuse(const Refusal& refusal, const Peer& peer, const std::string& service) {
        tally_.refusals[static_cast<std::size_t>(refusal.code)]++;
        if (const auto suppressed = refusals_.count(peer.unit, peer.uid, steady_usec())) {
                std::string message = fmt::format("{} was refused: {}", name_of(peer), refusal.message);
                if (*suppressed > 0) {
                        message += fmt::format(
                                " ({} more refusals of this sender, or of others of its unit and range "
                                "of uids, were not written)",
                                *suppressed);
                }
                audit_.write({.action = Action::kRefuse,
                              .priority = 4,
                              .message = std::move(message),
                              .service = service,
                              .result = std::string(to_string(refusal.code)),
                              .rule = refusal.rule,
                              .unit = peer.unit,
                              .has_peer = true,
                              .uid = peer.uid,
                              .pid = peer.pid});
        }
        return answer(refusal.code, refusal.message);
}

Answer Broker::store(const Admission& admission, const Incoming& message, const Peer& peer) {
        const Service& service = *admission.service;
        if (const auto wait = service_rates_.take(service.name, steady_usec()); wait != 0) {
                return refuse(
                        {ResultCode::kRateLimited,
                         fmt::format("too many sockets are registered for {}, ask again in {} ms (RateLimitBurst= "
                                     "in sockbrokerd.conf)",
                                     service.name, wait / 1000 + 1),
                         {}},
                        peer, service.name);
        }
        auto found = offers_of(message);
        if (!found) {
                return refuse(found.error(), peer, service.name);
        }
        std::vector<SocketFacts> all;
        for (const auto& offer : *found) {
                all.push_back(offer.facts);
        }
        const auto distinct = distinct_sockets(all);
        std::vector<Offer> offers;
        std::vector<SocketFacts> facts;
        for (const std::size_t i : distinct) {
                offers.push_back((*found)[i]);
                facts.push_back(all[i]);
        }
        const auto assignments = check_sockets(*policy_, service, facts, netns_cookie_);
        if (!assignments) {
                auto refusal = assignments.error();
                if (refusal.code == ResultCode::kForeignNetns && !options_.netns.empty()) {
                        refusal.message = fmt::format("this is the broker of network namespace {}: {}", options_.netns,
                                                      refusal.message);
                }
                return refuse(refusal, peer, service.name);
        }
        tell_departures(registry_.refresh_holders(service.name), Action::kGone, kGoneWhy);
        for (std::size_t i = 0; i < offers.size(); i++) {
                offers[i].serves = (*assignments)[i];
        }
        const auto refusal = [&] {
                return check_occupancy(*policy_, service, facts, *assignments,
                                       registry_.occupancy(service.name, peer, offers));
        };
        if (refusal()) {  // by what is remembered; what counts is what lives
                tell_departures(registry_.refresh(service.name), Action::kGone, kGoneWhy);
                if (const auto still = refusal()) {
                        return refuse(*still, peer, service.name);
                }
        }
        tell_departures(registry_.make_room(offers.size()), Action::kGone,
                        "it was displaced, and others need its place");
        // Before the first datagram comes.
        const auto replies = prepare_replies(service, peer, facts);
        const auto handed = registry_.commit(service, peer, offers);
        if (!handed) {
                return refuse(handed.error(), peer, service.name);
        }
        hold(service, *handed, message);
        tell_handed(admission, *handed);
        auto taken = answer(ResultCode::kOk, fmt::format("registered {} socket{} for {}", offers.size(),
                                                         offers.size() == 1 ? "" : "s", service.name));
        taken.warnings = warn(admission, peer, facts);
        if (!replies) {
                taken.warnings.push_back(tell_no_replies(service, peer, replies.error()));
        }
        return taken;
}

void Broker::remove(const Request& request, const Peer& peer, const Reply& reply) {
        const bool any = request.verb == Verb::kUnregister && peer.uid == 0;
        if (!request.service.empty()) {
                return reply(remove_of(request.service, any, peer));
        }
        when_admitted({}, peer, 0, reply,
                      [this](const Admission& admission, const Peer& admitted, const Reply& answered) {
                              answered(remove_of(admission.service->name, false, admitted));
                      });
}

Answer Broker::remove_of(const std::string& name, bool any, const Peer& peer) {
        if (policy_->find(name) == nullptr) {
                return refuse({ResultCode::kUnknownService, fmt::format("no policy names a service \"{}\"", name), {}},
                              peer, name);
        }
        const auto gone = [&](const std::string&, const Registration& registration) {
                return any || is_owner(peer, registration);
        };
        tell_departures(registry_.refresh(name), Action::kGone, kGoneWhy);
        const bool nothing_there = registry_.registrations(name).empty();
        const auto departures = registry_.remove(name, gone);
        if (!departures) {
                return refuse({ResultCode::kInternal, departures.error().text(), {}}, peer, name);
        }
        if (departures->empty()) {
                const auto code = nothing_there ? ResultCode::kNotHeld : ResultCode::kNotPermitted;
                return refuse({code,
                               nothing_there ? fmt::format("{} has no socket here", name)
                                             : fmt::format("the sockets of {} were registered by others, only root may "
                                                           "unregister them",
                                                           name),
                               {}},
                              peer, name);
        }
        tell_departures(departures, Action::kUnregister, fmt::format("asked by {}", peer.to_string()));
        return answer(ResultCode::kOk, fmt::format("unregistered {} socket{} of {}", departures->size(),
                                                   departures->size() == 1 ? "" : "s", name));
}

Answer Broker::monitor(const Peer& peer) {
        if (peer.uid != 0) {
                return refuse({ResultCode::kNotRoot,
                               "only root may monitor: events tell what others asked for; the journal has them for "
                               "those who may read it",
                               {}},
                              peer, {});
        }
        if (!monitors_.any()) {
                no_socket_.begin(*policy_, steady_usec());
        }
        Answer result = answer(ResultCode::kOk, "the broker ends");
        result.feed = monitors_.open();
        if (result.feed == nullptr) {
                return refuse({ResultCode::kBusy,
                               fmt::format("{} monitors run already, end one of them", Monitors::kMaxReaders),
                               {}},
                              peer, {});
        }
        return result;
}

}  // namespace sockbroker
