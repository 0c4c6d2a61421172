// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/broker.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "broker/base/thrown.h"
#include "broker/daemon/migration.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

PolicyLimits room_of(const Capacity& capacity) {
        return {.max_bindings = capacity.bindings,
                .max_services = capacity.services,
                .max_accounted = capacity.accounted};
}

// Less than is configured where the maps could not be made larger.
PolicyLimits limits_of(const BrokerConfig& config, const PolicyLimits& room) {
        return {.max_bindings = std::min(config.limits.max_bindings, room.max_bindings),
                .max_services = std::min(config.limits.max_services, room.max_services),
                .max_accounted = std::min(config.limits.max_accounted, room.max_accounted)};
}

// Empty: of others, policy or whose sockets they are about says who may ask.
std::string_view why_root_only(Verb verb) {
        switch (verb) {
        case Verb::kReload:
                return "only root may reload the policy";
        case Verb::kDiff:
        case Verb::kKeep:
                return "only root may compare or keep policies";
        case Verb::kUnload:
                return "only root may take dispatch away";
        case Verb::kMonitor:
                return "only root may monitor: events tell what others asked for; the journal has them for those who "
                       "may read it";
        default:
                return {};
        }
}

// What people are told of: beyond it requests and policies are refused, whatever the maps have room for.
Capacity allowed_of(const BrokerConfig& config, const Capacity& capacity) {
        const auto limits = limits_of(config, room_of(capacity));
        return {.bindings = limits.max_bindings,
                .services = limits.max_services,
                .sockets = std::min(config.max_sockets, capacity.sockets),
                .accounted = limits.max_accounted};
}

RoutesOptions routes_of(const DaemonOptions& options, const BrokerConfig& config) {
        return {.socket_path = options.runtime_dir + "/routes",
                .memory_path = options.state_dir + "/routes",
                .spans = {.up_usec = config.routes.up_usec, .down_usec = config.routes.down_usec},
                .table = config.routes.announce_table};
}

}  // namespace

Broker::Broker(const DaemonOptions& options, const BrokerConfig& config, std::unique_ptr<Dataplane> dataplane,
               const Helpers& helpers)
        : dataplane_(std::move(dataplane)),
          audit_(helpers.audit),
          names_(helpers.names),
          registry_(*dataplane_),
          refusals_(audit_),
          entries_(audit_, policy_),
          held_(helpers.event, helpers.crew, helpers.has_store, registry_, policy_, refusals_, entries_, audit_),
          routes_(helpers.event, helpers.disk, routes_of(options, config), registry_, entries_, audit_),
          departures_(audit_, entries_, held_, routes_),
          replies_(dataplane_->unit_programs(), policy_, registry_, refusals_, entries_, audit_),
          reloads_(PolicySource(options, limits_of(config, room_of(dataplane_->capacity())),
                                room_of(dataplane_->capacity())),
                   policy_, registry_, names_, helpers.worker, departures_, replies_, held_, routes_, audit_),
          flows_(*dataplane_),
          attachment_(*dataplane_, audit_, helpers.in_netns ? std::string() : options.netns),
          report_(*dataplane_, policy_, reloads_, registry_, departures_, held_, routes_, names_, refusals_, audit_,
                  flows_, attachment_, allowed_of(config, dataplane_->capacity()), helpers.netns_cookie,
                  helpers.mistakes),
          registrar_(policy_, registry_, departures_, replies_, held_, routes_, refusals_, entries_,
                     {config.rate_interval_usec, config.rate_burst}, options.netns, helpers.netns_cookie),
          admissions_(names_, policy_),
          matching_(policy_, admissions_, names_, registry_, departures_, refusals_),
          no_socket_(*dataplane_, monitors_),
          notify_rates_({config.rate_interval_usec, config.notify_burst}),
          uid_rates_({config.rate_interval_usec, config.rate_burst}) {
        audit_.tap([this](const Entry& entry) { monitors_.tell(entry); });
}

Broker::~Broker() {
        audit_.tap({});
}

void Broker::start(std::vector<StoredFd> stored, std::vector<StoredFd> strangers) {
        attachment_.look();
        registry_.take_up();
        auto routes = reloads_.load_at_start();
        departures_.gone(registry_.refresh_all());
        audit_.write({.action = Action::kStart, .message = reloads_.status_text()});
        held_.take_up(std::move(stored));
        departures_.gone(registry_.refresh_all());
        held_.drop_strangers(std::move(strangers));
        routes_.take(std::move(routes));
}

bool Broker::probe_some() {
        if (no_socket_.sample(*policy_, steady_usec())) {
                return true;
        }
        flows_.sweep_if_due(steady_usec());
        replies_.sweep_if_due(steady_usec());
        constexpr auto kTimePerTurn = std::chrono::milliseconds(2);
        departures_.gone(registry_.refresh_some(sweep_, std::chrono::steady_clock::now() + kTimePerTurn));
        return !sweep_.done;
}

void Broker::tell_left_out() {
        if (const auto thrown = thrown_in_callbacks.exchange(0); thrown > 0) {
                audit_.note(3, fmt::format("{} events were not handled to their end, for want of memory (MemoryMax= of "
                                           "the unit?)",
                                           thrown));
        }
        refusals_.tell_left_out();
        entries_.tell_left_out();
        registrar_.tell_of_families();
        attachment_.look();
}

void Broker::handle(Channel channel, const IncomingPtr& message, const Reply& reply) {
        try {
                handle_message(channel, message, reply);
        } catch (const std::exception& error) {
                // Memory, in the first place: it costs this peer its request and nobody else.
                reply(Answer{.code = ResultCode::kInternal, .message = text_of(error)});
        }
}

void Broker::handle_message(Channel channel, const IncomingPtr& message, const Reply& reply) {
        const Peer peer = claimed_by(*message);
        const auto refuse = [&](const Refusal& refusal, const Peer& refused, const std::string& service) {
                reply(refusals_.refuse(refusal, refused, service));
        };
        if (channel == Channel::kNotify) {
                if (const auto& refusal = rate_of(channel, *message)) {
                        return refuse(*refusal, peer, {});
                }
        }
        if (const auto& refusal = message->not_taken) {
                return refuse(*refusal, peer, {});
        }
        if (message->truncated) {
                return refuse(refuse_truncated(), peer, {});
        }
        if (const auto& refusal = message->malformed) {
                return refuse(*refusal, peer, {});
        }
        const auto request = parse_request(channel, message->text, message->count);
        if (!request) {
                return refuse(request.error(), peer, {});
        }
        switch (request->verb) {
        case Verb::kNothing:
                return reply({});
        case Verb::kBarrier:
                return reply({.message = "all earlier messages were handled"});
        case Verb::kStatus:
                return reply(report_.status());
        case Verb::kList:
                return reply(report_.list());
        case Verb::kBindings:
                return reply(report_.bindings(false));
        case Verb::kCounted:
                return reply(report_.bindings(true));
        case Verb::kVersion:
                return reply(report_.version());
        default:
                break;
        }
        if (channel == Channel::kControl) {
                if (const auto& refusal = rate_of(channel, *message)) {
                        return refuse(*refusal, peer, request->service);
                }
        }
        if (request->verb == Verb::kExplain) {
                return reply(report_.explain(*request));
        }
        const auto& identified = sender_of(*message, *request);
        if (!identified) {
                Answer refused = refusals_.refuse(identified.error(), peer, request->service);
                refused.cause = message->pid_not_believed ? "PID" : "";
                return reply(std::move(refused));
        }
        if (const auto why = why_root_only(request->verb); !why.empty() && identified->uid != 0) {
                return refuse({ResultCode::kNotRoot, std::string(why), {}}, *identified, {});
        }
        if (const auto refusal = on_connection_of_another(*message, request->verb)) {
                return refuse(*refusal, *identified, request->service);
        }
        switch (request->verb) {
        case Verb::kStore:
                return store(message, *request, *identified, reply);
        case Verb::kRemove:
        case Verb::kUnregister:
                return remove(*request, *identified, reply);
        case Verb::kReload:
                return reloads_.reload(reply, static_cast<std::int64_t>(request->timeout_usec));
        case Verb::kDiff:
                return reloads_.diff(reply);
        case Verb::kKeep:
                return reloads_.keep(reply);
        case Verb::kUnload:
                return unload(*identified, reply);
        case Verb::kDrain:
        case Verb::kUndrain:
                return drain(*request, *identified, reply);
        case Verb::kMonitor:
                return reply(monitor(*identified));
        case Verb::kMatch:
                return matching_.match(request->bind, *identified, reply);
        case Verb::kPrepare:
                return when_admitted(request->service, *identified, 0, reply,
                                     [this](const Admission& admission, const Peer& admitted, const Reply& answered) {
                                             answered(replies_.prepare(admission, admitted));
                                     });
        case Verb::kHold:
                return reply(held_.hold_over_stop(*request, *identified));
        default:
                return retrieve(*request, *identified, *message, reply);
        }
}

void Broker::act_on(const Admissions::Verdict& verdict, const std::string& service, const Peer& peer,
                    const Reply& reply, const Act& act) {
        try {
                if (!verdict) {
                        return reply(refusals_.refuse(verdict.error(), peer, service));
                }
                Peer admitted = peer;
                admitted.user_name = verdict->user;
                admitted.group_name = verdict->group;
                act(*verdict, admitted, reply);
        } catch (const std::exception& error) {  // as in handle(), which may have returned
                reply(Answer{.code = ResultCode::kInternal, .message = text_of(error)});
        }
}

void Broker::when_admitted(const std::string& service, const Peer& peer, std::size_t descriptors, const Reply& reply,
                           const Act& act) {
        admissions_.judge(service, peer, descriptors, [=, this](const Admissions::Verdict& verdict) {
                act_on(verdict, service, peer, reply, act);
        });
}

void Broker::store(const IncomingPtr& message, const Request& request, const Peer& peer, const Reply& reply) {
        const auto told = request.migrate ? with_migration(reply, dataplane_->migration_program()) : reply;
        const Registrar::Wish wish{.on_behalf = request.pid != 0, .inherit = request.inherit, .family = request.family};
        const auto act = [this, message, wish](const Admission& admission, const Peer& admitted,
                                               const Reply& answered) {
                message->settled = true;
                answered(registrar_.store(admission, *message, admitted, wish));
        };
        // Judged before its descriptors were taken, maybe.
        if (const auto& verdict = message->verdict; verdict && message->judged_by == policy_.shared()) {
                return act_on(*verdict, request.service, peer, told, act);
        }
        when_admitted(request.service, peer, message->count, told, act);
}

void Broker::remove(const Request& request, const Peer& peer, const Reply& reply) {
        const bool any = request.verb == Verb::kUnregister && peer.uid == 0;
        if (!request.service.empty()) {
                return reply(registrar_.remove(request.service, any, peer));
        }
        when_admitted({}, peer, 0, reply,
                      [this](const Admission& admission, const Peer& admitted, const Reply& answered) {
                              answered(registrar_.remove(admission.service->name, false, admitted));
                      });
}

void Broker::retrieve(const Request& request, const Peer& peer, const Message& message, const Reply& reply) {
        const auto process = std::make_shared<OwnedFd>(process_of(message, peer));
        const Act give_back = [this, process](const Admission& admission, const Peer& admitted, const Reply& answered) {
                reply_with(answered, [&] { return held_.give_back(admission, admitted, *process); });
        };
        const Act settle = [this, give_back](const Admission& admission, const Peer& admitted, const Reply& answered) {
                const auto& service = admission.service->name;
                held_.settle(service, [this, service, admitted, give_back, answered] {
                        // By the policy of now.
                        or_fail(answered, [&] { when_admitted(service, admitted, 0, answered, give_back); });
                });
        };
        when_admitted(request.service, peer, 0, reply, settle);
}

Answer Broker::monitor(const Peer& peer) {
        if (!monitors_.any()) {
                no_socket_.begin(*policy_, steady_usec());
        }
        Answer result{.message = "the broker ends", .feed = monitors_.open()};
        if (result.feed == nullptr) {
                return refusals_.refuse({ResultCode::kBusy,
                                         fmt::format("{} monitors run already, end one of them", Monitors::kMaxReaders),
                                         {}},
                                        peer, {});
        }
        return result;
}

}  // namespace sockbroker
