// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/broker.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>

#include <fmt/format.h>

#include "broker/base/interface_index.h"

namespace sockbroker {

namespace {

std::int64_t now_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

std::size_t count_errors(const std::vector<Diagnostic>& diagnostics) {
        return static_cast<std::size_t>(std::ranges::count(diagnostics, Severity::kError, &Diagnostic::severity));
}

// Who may take a registration away: the unit that made it, or outside units its uid.
bool owns(const Peer& peer, const Registration& registration) {
        const auto& owner = registration.registrant;
        return owner.unit.empty() && peer.unit.empty() ? owner.uid == peer.uid
                                                       : !peer.unit.empty() && owner.unit == peer.unit;
}

Answer answer(ResultCode code, std::string message, Rows rows = {}) {
        return Answer{.code = code, .message = std::move(message), .rows = std::move(rows)};
}

}  // namespace

Broker::Broker(DaemonOptions options, const BrokerConfig& config, std::unique_ptr<Dataplane> dataplane, Audit& audit)
        : options_(std::move(options)),
          limits_(config.limits),
          dataplane_(std::move(dataplane)),
          audit_(audit),
          registry_(*dataplane_),
          accounts_(system_accounts()),
          started_usec_(now_usec()) {
        // Where the maps could not be made larger.
        limits_.max_bindings = std::min(limits_.max_bindings, dataplane_->capacity().bindings);
        limits_.max_accounted = std::min(limits_.max_accounted, dataplane_->capacity().accounted);
        limits_.max_services = std::min(limits_.max_services, dataplane_->capacity().services);
}

Result<std::unique_ptr<Broker>> Broker::start(DaemonOptions options, const BrokerConfig& config,
                                              std::unique_ptr<Dataplane> dataplane, Audit& audit) {
        const auto cookie = own_netns_cookie();
        if (!cookie) {
                return std::unexpected(cookie.error());
        }
        std::unique_ptr<Broker> broker(new Broker(std::move(options), config, std::move(dataplane), audit));
        broker->netns_cookie_ = *cookie;
        broker->registry_.take_up();
        broker->load_at_start();
        broker->probe_liveness();
        audit.write({.action = Action::kStart, .message = broker->status_text()});
        return broker;
}

std::string Broker::apply(Policy policy) {
        auto interfaces = find_interfaces(policy, interface_index);
        auto departures = registry_.set_policy(policy, interfaces);
        if (!departures) {
                return departures.error().text();
        }
        interfaces_ = std::move(interfaces);
        policy_ = std::make_shared<const Policy>(std::move(policy));
        policy_since_usec_ = now_usec();
        tell_departures(departures, Action::kRevoke, "policy has no such service any more");
        revoke_unadmitted();
        return {};
}

void Broker::refresh_interfaces() {
        if (interfaces_.empty()) {
                return;  // the policy has no Interface=
        }
        auto interfaces = find_interfaces(*policy_, interface_index);
        if (interfaces == interfaces_) {
                return;
        }
        std::string changes;
        for (const auto& [name, index] : interfaces) {
                if (index != interfaces_[name]) {
                        changes += fmt::format("{}{} {}", changes.empty() ? "" : ", ", name,
                                               index == 0 ? "is gone" : fmt::format("has index {}", index));
                }
        }
        // The services are the same, so nothing departs.
        if (const auto done = registry_.set_policy(*policy_, interfaces); !done) {
                return note(3,
                            fmt::format("cannot follow a change of interfaces ({}): {}", changes, done.error().text()));
        }
        interfaces_ = std::move(interfaces);
        note(6, fmt::format("rules follow a change of interfaces: {}", changes));
}

// A reload takes away what the new policy would refuse.
void Broker::revoke_unadmitted() {
        const auto gone = [this](const std::string& service, const Registration& registration) {
                const auto* found = policy_->find(service);
                return found == nullptr || !admit(*policy_, registration.registrant, service, accounts_) ||
                       std::ranges::none_of(found->bindings, [&](const Binding& binding) {
                               return registration.serves_in(binding.protocol, binding.prefix.address.family);
                       });
        };
        tell_departures(registry_.remove_all(gone), Action::kRevoke, "policy does not admit it any more");
}

Broker::Loaded Broker::load_folders() {
        auto found = read_policy_files(options_.config_dirs);
        auto parsed = parse_policy(found.files, limits_);
        Loaded loaded{std::move(found.files), std::move(parsed.policy), std::move(found.diagnostics)};
        std::ranges::move(parsed.diagnostics, std::back_inserter(loaded.diagnostics));
        if (count_errors(loaded.diagnostics) > 0) {
                loaded.policy.reset();
        } else if (loaded.policy) {
                std::ranges::move(unknown_accounts(*loaded.policy, accounts_), std::back_inserter(loaded.diagnostics));
                std::ranges::move(unknown_interfaces(*loaded.policy, interface_index),
                                  std::back_inserter(loaded.diagnostics));
        }
        tell_diagnostics(loaded.diagnostics);
        return loaded;
}

void Broker::load_at_start() {
        auto [files, policy, diagnostics] = load_folders();
        if (policy) {
                degraded_ = apply(std::move(*policy));
                if (degraded_.empty()) {
                        keep_copy(files);
                        return;
                }
        } else {
                degraded_ = fmt::format("policy refused at start, {} errors", count_errors(diagnostics));
        }
        audit_.write({.action = Action::kReloadFailed, .priority = 3, .message = degraded_});

        const auto copy = read_policy_copy(options_.policy_copy());
        if (!copy) {
                degraded_ += fmt::format("; no copy of the policy last taken: {}", copy.error().text());
                return;
        }
        auto parsed = parse_policy(*copy, limits_);
        const std::string why = parsed.policy ? apply(std::move(*parsed.policy)) : "the copy is damaged";
        degraded_ += why.empty() ? "; the policy last taken serves" : "; the policy last taken cannot serve: " + why;
}

// For a start at which the policy of the folders is refused.
void Broker::keep_copy(const std::vector<PolicyFile>& files) {
        if (auto written = write_policy_copy(options_.policy_copy(), files); !written) {
                degraded_ = written.error().text();
        }
}

Answer Broker::reload() {
        auto [files, policy, diagnostics] = load_folders();
        std::string lines;
        for (const auto& diagnostic : diagnostics) {
                lines += diagnostic_line(diagnostic);
        }

        std::string why;
        if (const auto errors = count_errors(diagnostics); !policy) {
                why = fmt::format("policy refused, {} error{}, the running policy stays", errors,
                                  errors == 1 ? "" : "s");
        } else if (const auto failed = apply(std::move(*policy)); !failed.empty()) {
                why = fmt::format("policy refused, the running policy stays: {}", failed);
        }
        if (!why.empty()) {
                degraded_ = why;
                audit_.write({.action = Action::kReloadFailed, .priority = 3, .message = why, .result = "malformed"});
                return answer(ResultCode::kMalformed, why, rows_of_lines(std::move(lines)));
        }
        degraded_.clear();
        keep_copy(files);
        const auto message = fmt::format("policy taken: {}", status_text());
        audit_.write({.action = Action::kReload, .message = message, .result = "ok"});
        return answer(ResultCode::kOk, message, rows_of_lines(std::move(lines)));
}

void Broker::probe_liveness() {
        tell_departures(registry_.refresh_all(), Action::kGone, kGoneWhy);
}

Answer Broker::handle(Channel channel, const Message& message) {
        try {
                return handle_message(channel, message);
        } catch (const std::exception& error) {
                // Memory, in the first place: it costs this peer its request and nobody else.
                return answer(ResultCode::kInternal, error.what());
        }
}

Answer Broker::handle_message(Channel channel, const Message& message) {
        Peer peer;
        if (message.credentials) {
                peer = {.pid = message.credentials->pid,
                        .uid = message.credentials->uid,
                        .gid = message.credentials->gid};
        }
        if (message.truncated) {
                return refuse(refuse_truncated(), peer, {});
        }
        const auto request = parse_request(channel, message.text, message.fds.size());
        if (!request) {
                return refuse(request.error(), peer, {});
        }
        switch (request->verb) {
        case Verb::kNothing:
                return {};
        case Verb::kBarrier:
                return answer(ResultCode::kOk, "all earlier messages were handled");
        case Verb::kStatus:
                return answer(ResultCode::kOk, status_text(), status_rows());
        case Verb::kList:
                return answer(ResultCode::kOk, "", list_rows());
        case Verb::kBindings:
                return answer(ResultCode::kOk, "", binding_rows());
        case Verb::kVersion:
                return answer(ResultCode::kOk, "sockbroker " SOCKBROKER_VERSION,
                              rows_of_lines(fmt::format("{{\"version\":\"{}\",\"layout\":{}}}\n", SOCKBROKER_VERSION,
                                                        Dataplane::layout_version())));
        default:
                break;
        }
        auto identified = identify(message);
        if (!identified) {
                return refuse(identified.error(), peer, request->service);
        }
        switch (request->verb) {
        case Verb::kStore:
                return store(*request, message, *identified);
        case Verb::kRemove:
        case Verb::kUnregister:
                return remove(*request, *identified);
        case Verb::kReload:
                if (identified->uid != 0) {
                        return refuse({ResultCode::kNotRoot, "only root may reload the policy", {}}, *identified, {});
                }
                return reload();
        case Verb::kUnload:
                return unload(*identified);
        default:
                return refuse({ResultCode::kNotHeld, "the broker holds no socket of this service", {}}, *identified,
                              request->service);
        }
}

Answer Broker::refuse(const Refusal& refusal, const Peer& peer, const std::string& service) {
        if (const auto suppressed = refusals_.count(peer.uid, now_usec())) {
                std::string message = refusal.message;
                if (*suppressed > 0) {
                        message += fmt::format(" ({} more refusals of uid {} were not written)", *suppressed, peer.uid);
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

std::expected<Admission, Refusal> Broker::admission(const std::string& service, const Peer& peer) {
        if (!service.empty()) {
                return admit(*policy_, peer, service, accounts_);
        }
        const auto found = admit(*policy_, peer, {}, remembered_.recall(peer.uid, peer.gid));
        return found ? admit(*policy_, peer, found->service->name, accounts_) : found;
}

Answer Broker::store(const Request& request, const Message& message, const Peer& peer) {
        const auto admission = this->admission(request.service, peer);
        if (!admission) {
                return refuse(admission.error(), peer, request.service);
        }
        const Service& service = *admission->service;
        std::vector<SocketFacts> facts;
        for (const auto& fd : message.fds) {
                const auto one = probe_socket(fd.get());
                if (!one) {
                        return refuse({ResultCode::kInternal, one.error().text(), {}}, peer, service.name);
                }
                facts.push_back(*one);
        }
        const auto assignments = check_sockets(*policy_, service, facts, netns_cookie_);
        if (!assignments) {
                return refuse(assignments.error(), peer, service.name);
        }
        tell_departures(registry_.refresh(service.name), Action::kGone, kGoneWhy);
        std::vector<Offer> offers;
        offers.reserve(facts.size());
        for (std::size_t i = 0; i < facts.size(); i++) {
                offers.push_back({message.fds[i].get(), facts[i], (*assignments)[i]});
        }
        const auto occupancy = registry_.occupancy(service.name, offers);
        if (const auto refusal = check_occupancy(*policy_, service, facts, *assignments, occupancy)) {
                return refuse(*refusal, peer, service.name);
        }
        const auto handed = registry_.commit(service, peer, offers);
        if (!handed) {
                return refuse(handed.error(), peer, service.name);
        }
        tell_handed(*admission, *handed);
        return answer(ResultCode::kOk, fmt::format("registered {} socket{} for {}", offers.size(),
                                                   offers.size() == 1 ? "" : "s", service.name));
}

Answer Broker::remove(const Request& request, const Peer& peer) {
        std::string name = request.service;
        if (name.empty()) {
                const auto admission = this->admission(name, peer);
                if (!admission) {
                        return refuse(admission.error(), peer, name);
                }
                name = admission->service->name;
        }
        if (policy_->find(name) == nullptr) {
                return refuse({ResultCode::kUnknownService, fmt::format("no policy names a service \"{}\"", name), {}},
                              peer, name);
        }
        const bool any = request.verb == Verb::kUnregister && peer.uid == 0;
        const auto gone = [&](const std::string&, const Registration& registration) {
                return any || owns(peer, registration);
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

Answer Broker::unload(const Peer& peer) {
        if (peer.uid != 0) {
                return refuse({ResultCode::kNotRoot, "only root may take dispatch away", {}}, peer, {});
        }
        if (auto done = Dataplane::unload(options_.pin_dir()); !done) {
                return refuse({ResultCode::kInternal, done.error().text(), {}}, peer, {});
        }
        audit_.write({.action = Action::kUnload,
                      .priority = 4,
                      .message = "dispatch was taken away, the broker ends",
                      .has_peer = true,
                      .uid = peer.uid,
                      .pid = peer.pid});
        Answer result = answer(ResultCode::kOk, "dispatch was taken away");
        result.unloaded = true;
        return result;
}

}  // namespace sockbroker
