// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/broker.h"
#include "broker/daemon/event.h"
#include "broker/daemon/holds.h"
#include "broker/daemon/migration.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include <fmt/format.h>

#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

constexpr uid_t kUnknownSender = static_cast<uid_t>(-1);  // counts for itself, not for root

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
                                              std::unique_ptr<Dataplane> dataplane, Audit& audit, Names& names) {
        const auto cookie = own_netns_cookie();
        if (!cookie) {
                return std::unexpected(cookie.error());
        }
        std::unique_ptr<Broker> broker(new Broker(std::move(options), config, std::move(dataplane), audit, names));
        broker->netns_cookie_ = *cookie;
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

// On `notify` before anything else, each message; on `control` those that change something.
const std::optional<Refusal>& Broker::rate_of(Channel channel, Incoming& message) {
        if (!std::exchange(message.counted, true)) {
                message.over_rate = over_rate(channel, message.credentials ? message.credentials->uid : kUnknownSender);
        }
        return message.over_rate;
}

const std::expected<Peer, Refusal>& Broker::sender_of(Incoming& message, const Request& request) {
        if (!message.identified) {
                auto sender = senders_.identify(message);
                message.identified =
                        sender && request.pid != 0 ? on_behalf_of(*sender, request.pid) : std::move(sender);
        }
        return *message.identified;
}

// Whether the broker keeps sockets of the service, for which it needs their descriptors.
bool Broker::is_kept(const Service& service) const {
        return holds_ != nullptr && service.hold_usec > 0;
}

void Broker::plan(Channel channel, const IncomingPtr& message, const std::function<void(const Intake&)>& then) {
        Intake intake;
        intake.charge.uid = message->credentials ? message->credentials->uid : kUnknownSender;
        if ((channel == Channel::kNotify && rate_of(channel, *message)) || message->truncated) {
                return then(intake);
        }
        const auto request = parse_request(channel, message->text, 1);
        if (!request || request->verb != Verb::kStore || rate_of(channel, *message)) {
                return then(intake);
        }
        const auto& peer = sender_of(*message, *request);
        if (!peer) {
                return then(intake);
        }
        intake.charge.unit = peer->unit;
        const auto judged = [this, message, intake](const Admissions::Verdict& verdict) {
                Intake judged_intake = intake;
                judged_intake.charge.admitted = judged_intake.probe = verdict.has_value();
                if (verdict && is_kept(*verdict->service)) {
                        judged_intake.holder = verdict->service->name;
                        message->in_holder = holds_->in_holder(judged_intake.holder);
                }
                return judged_intake;
        };
        if (channel == Channel::kNotify) {
                Intake known = judged(admit(*policy_, *peer, request->service, names_.last_known()));
                known.probe = known.probe || !names_that_matter(*policy_, *peer, request->service).empty();
                return then(known);
        }
        admissions_.judge(request->service, *peer, 1,
                          [this, message, then, judged](const Admissions::Verdict& verdict) {
                                  message->verdict = verdict;
                                  message->judged_by = policy_;
                                  then(judged(verdict));
                          });
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
        Peer peer;
        if (message->credentials) {
                peer = {.pid = message->credentials->pid,
                        .uid = message->credentials->uid,
                        .gid = message->credentials->gid};
        }
        if (channel == Channel::kNotify) {
                if (const auto& refusal = rate_of(channel, *message)) {
                        return reply(refuse(*refusal, peer, {}));
                }
        }
        if (message->not_taken) {
                return reply(refuse(*message->not_taken, peer, {}));
        }
        if (message->truncated) {
                return reply(refuse(refuse_truncated(), peer, {}));
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
                return reply(answer(ResultCode::kOk, "sockbroker " SOCKBROKER_VERSION,
                                    rows_of_lines(fmt::format("{{\"version\":\"{}\",\"layout\":{}}}\n",
                                                              SOCKBROKER_VERSION, Dataplane::layout_version()))));
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
                return reply(refuse(identified.error(), peer, request->service));
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

void Broker::park(Incoming& message) {
        for (auto& one : message.arrived) {
                if (one.errnum != 0) {
                        continue;
                }
                if (const auto entry = dataplane_->park(one.entry)) {
                        one.entry = *entry;
                } else {
                        one.errnum = entry.error().errnum;
                }
        }
}

void Broker::drop(const Message& message) {
        Peer peer;
        if (message.credentials) {
                peer = {.pid = message.credentials->pid,
                        .uid = message.credentials->uid,
                        .gid = message.credentials->gid};
        }
        (void)refuse(
                {ResultCode::kRateLimited,
                 fmt::format("too many messages of uid {} wait behind one for whose service the host does not answer",
                             peer.uid),
                 {}},
                peer, {});
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

std::optional<Refusal> Broker::over_rate(Channel channel, uid_t uid) {
        const bool notify = channel == Channel::kNotify;
        const auto wait = (notify ? notify_rates_ : uid_rates_).take(uid, steady_usec());
        if (wait == 0) {
                return std::nullopt;
        }
        return Refusal{ResultCode::kRateLimited,
                       fmt::format("uid {} has sent too many {}, ask again in {} ms ({}RateLimitBurst= in "
                                   "sockbrokerd.conf)",
                                   uid, notify ? "messages" : "requests", wait / 1000 + 1, notify ? "Notify" : ""),
                       {}};
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

// What a hand has looked at.
std::expected<std::vector<Offer>, Refusal> Broker::offers_of(const Incoming& message) {
        std::vector<Offer> offers;
        if (message.arrived.size() != message.count) {
                return std::unexpected(
                        Refusal{ResultCode::kBusy,
                                "policy came to admit this sender only after its message was on its way, send it again",
                                {}});
        }
        offers.reserve(message.arrived.size());
        for (const auto& one : message.arrived) {
                offers.push_back({.entry = one.entry, .errnum = one.errnum, .facts = one.facts});
        }
        return offers;
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
                return refuse(assignments.error(), peer, service.name);
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
