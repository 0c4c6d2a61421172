// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker says of itself: rows for the control socket, entries for the journal.
#include <algorithm>
#include <array>
#include <ctime>
#include <span>

#include <fmt/format.h>

#include "broker/base/printable.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/change.h"
#include "broker/daemon/event.h"
#include "broker/daemon/routes.h"
#include "broker/policy/warnings.h"

namespace sockbroker {

namespace {

std::size_t count_bindings(const Service& service) {
        std::size_t bindings = 0;
        for (const auto& binding : service.bindings) {
                bindings += count_client_filters(service, binding.prefix.address.family);
        }
        return bindings;
}

std::size_t count_bindings(const Policy& policy) {
        std::size_t bindings = 0;
        for (const auto& service : policy.services) {
                bindings += count_bindings(service);
        }
        return bindings;
}

}  // namespace

std::string describe(const Names::Silent& silent) {
        constexpr std::size_t kShown = 5;
        std::string names;
        for (std::size_t i = 0; i < std::min(silent.names.size(), kShown); i++) {
                names += fmt::format("{}{}={}", i == 0 ? "" : " ",
                                     silent.names[i].kind == AccountKind::kUser ? "User" : "Group",
                                     silent.names[i].name);
        }
        const std::time_t since = silent.since_usec / 1'000'000;
        std::tm utc{};
        gmtime_r(&since, &utc);
        std::array<char, 32> text{};
        (void)std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &utc);
        return fmt::format(
                "the host's directory (NSS) does not answer for {}{} since {}: what it said last counts, and "
                "nothing is taken away for it",
                names, silent.names.size() > kShown ? fmt::format(" and {} more", silent.names.size() - kShown) : "",
                text.data());
}

Entry entry_of(Action action, const std::string& service, const Registration& registration) {
        return Entry{.action = action,
                     .service = service,
                     .cookie = registration.cookie,
                     .protocol = std::string(to_string(registration.protocol)),
                     .bound = registration.bound.to_string(),
                     .unit = registration.registrant.unit,
                     .has_peer = true,
                     .uid = registration.registrant.uid,
                     .pid = registration.registrant.pid};
}

namespace {

std::string name_of(const Registration& registration) {
        return fmt::format("{} socket {}", to_string(registration.protocol), registration.bound.to_string());
}

}  // namespace

namespace {

SocketCount count_sockets(const Registry& registry, const std::string& service) {
        SocketCount count;
        const auto registrations = registry.registrations(service);
        const auto distribution = registry.distribution(service);
        for (const auto& one : registrations) {
                (one.held() ? count.held : is_live(registrations, distribution, one) ? count.live : count.draining)++;
        }
        return count;
}

Refusal replaced_twice() {
        return {ResultCode::kBusy, "the policy was replaced twice while this was read, ask again", {}};
}

}  // namespace

std::string Broker::status_text() const {
        return printable(fmt::format("{} services, {} bindings{}", policy_->services.size(), count_bindings(*policy_),
                                     degraded_.empty() ? "" : ", degraded: " + degraded_));
}

void Broker::note(int priority, std::string message) {
        audit_.write({.action = Action::kDiagnostic, .priority = priority, .message = std::move(message)});
}

Rows Broker::status_rows() {
        BrokerStatus status{
                .degraded = degraded_,
                .degraded_since_usec = degraded_since_usec_,
                .since_usec = started_usec_,
                .policy_files = policy_->files.size(),
                .policy_services = policy_->services.size(),
                .policy_bindings = count_bindings(*policy_),
                .policy_since_usec = policy_since_usec_,
                .policy_digest = policy_digest_,
                .policy_trial_until_usec = trial_ ? wall_usec() + trial_->until_usec - steady_usec() : 0,
                .refused_digest = refused_digest_,
                .refused_since_usec = refused_since_usec_,
                .capacity = dataplane_->capacity(),
                .refused = refusals_.total(),
                .journal_lost = audit_.lost(),
        };
        status.warnings = warnings();
        status.tally = tally_;
        if (routes_ != nullptr) {
                const auto sum = routes_->sum();
                status.local_routes = sum.local;
                status.announced_routes = sum.announced;
                status.refused_routes = sum.refused;
                std::ranges::move(routes_->warnings(), std::back_inserter(status.warnings));
        }
        if (registry_.size() <= kAskAll) {
                probe_liveness();
        }
        status.gone = gone_;
        for (const auto& service : registry_.services()) {
                const auto count = count_sockets(registry_, service);
                status.live += count.live;
                status.held += count.held;
                status.draining += count.draining;
        }
        return [this, snapshot = snapshot_, next = std::size_t{0},
                first = status_line(status)]() mutable -> std::expected<std::optional<std::string>, Refusal> {
                if (!first.empty()) {
                        return std::exchange(first, {});
                }
                const auto& policy = snapshot->policy;
                if (policy == nullptr) {
                        return std::unexpected(replaced_twice());
                }
                if (next == policy->services.size()) {
                        return std::nullopt;
                }
                const auto& service = policy->services[next++];
                const auto routes = routes_ == nullptr ? Routes::OfService{} : routes_->of(service.name);
                return counters_line(service.name, count_sockets(registry_, service.name),
                                     registry_.counters(service.name), count_bindings(service), routes.announced,
                                     routes.drained);
        };
}

Rows Broker::list_rows() {
        static constexpr std::size_t kLinesAtOnce = 64;
        if (registry_.size() <= kAskAll) {
                probe_liveness();
        }
        return [this, services = registry_.services(), next = std::size_t{0},
                cursor = Cursor{}]() mutable -> std::optional<std::string> {
                while (next < services.size()) {
                        const auto& service = services[next];
                        const auto registrations = registry_.registrations(service);
                        const auto distribution = registry_.distribution(service);
                        std::string lines;
                        const auto rest = behind(cursor, registrations);
                        for (const auto& one : rest.first(std::min(rest.size(), kLinesAtOnce))) {
                                lines += list_line(service, one, is_live(registrations, distribution, one),
                                                   flows_.of(one, distribution, steady_usec()));
                                cursor = {one.since_usec, one.held()};
                        }
                        if (!lines.empty()) {
                                return lines;
                        }
                        next++;
                        cursor = {};
                }
                return std::nullopt;
        };
}

Rows Broker::binding_rows(bool counted_only) const {
        return [this, counted_only, snapshot = snapshot_, service = std::size_t{0}, binding = std::size_t{0},
                match = std::size_t{0}]() mutable -> std::expected<std::optional<std::string>, Refusal> {
                const auto& policy = snapshot->policy;
                if (policy == nullptr) {
                        return std::unexpected(replaced_twice());
                }
                while (service < policy->services.size()) {
                        const auto& one = policy->services[service];
                        if (binding == one.bindings.size() ||
                            (counted_only && one.accounting != Accounting::kBinding)) {
                                service++;
                                binding = match = 0;
                                continue;
                        }
                        const auto& shown = one.bindings[binding];
                        const auto family = shown.prefix.address.family;
                        // Ports alone stand twice, once for each family, but mean the same in both, unless clients are
                        // told apart.
                        const bool repeated = shown.bare && family == Family::kIpv6 && any_source(one);
                        if (repeated || match == count_client_filters(one, family)) {
                                binding++;
                                match = 0;
                                continue;
                        }
                        const auto meant = client_filter_at(one, family, match++);
                        std::optional<BindingCounters> counters;
                        if (one.accounting == Accounting::kBinding) {
                                counters = registry_.counters(one, shown, meant);
                                if (shown.bare && any_source(one)) {  // this line is of both families
                                        Binding other = shown;
                                        other.prefix.address.family = Family::kIpv6;
                                        const auto more = registry_.counters(one, other, meant);
                                        counters->lookups += more.lookups;
                                        counters->no_socket += more.no_socket;
                                }
                        }
                        return binding_line(*policy, one, shown, meant, counters);
                }
                return std::nullopt;
        };
}

void Broker::tell_departures(const Result<std::vector<Departure>>& departures, Action action, const std::string& why) {
        if (!departures) {
                audit_.write({.action = Action::kDiagnostic,
                              .priority = 3,
                              .message = "cannot take sockets away: " + departures.error().text()});
                return;
        }
        gone_ += action == Action::kGone ? departures->size() : 0;
        for (const auto& [service, registration] : *departures) {
                Entry entry = entry_of(action, service, registration);
                entry.message =
                        fmt::format("{} of {} is not registered any more: {}", name_of(registration), service, why);
                audit_.write(std::move(entry));
                remember_gone(service, why);
                drop_lost_holds(service);
                tell_routes(service);
        }
}

void Broker::remember_gone(const std::string& service, const std::string& why) {
        if (last_gone_.size() >= kGoneRemembered && !last_gone_.contains(service)) {
                last_gone_.erase(
                        std::ranges::min_element(last_gone_, {}, [](const auto& entry) { return entry.second.usec; }));
        }
        last_gone_[service] = {wall_usec(), why};
}

namespace {

// "tcp 192.0.2.0/24:80, 2001:db8::/64:80 and more": what a socket serves, as far as the first bindings tell.
std::string served_by(const Service& service, const Registration& registration) {
        constexpr std::size_t kLookedAt =
                256;  // a service may have a million, and register ten thousand times a second
        constexpr std::size_t kShown = 3;
        std::string text;
        std::size_t shown = 0;
        const auto looked_at = std::min(service.bindings.size(), kLookedAt);
        bool more = looked_at < service.bindings.size();
        for (const auto& binding : std::span(service.bindings).first(looked_at)) {
                if (binding.protocol != registration.protocol ||
                    !takes(registration.family, binding.prefix.address.family)) {
                        continue;
                }
                if (shown == kShown) {
                        more = true;
                        break;
                }
                const bool ipv6 = binding.prefix.address.family == Family::kIpv6;
                text += fmt::format("{}{}{}/{}{}:{}", shown++ == 0 ? "" : ", ", ipv6 ? "[" : "",
                                    binding.prefix.address.to_string(), binding.prefix.length, ipv6 ? "]" : "",
                                    binding.ports.to_string());
        }
        return shown == 0 ? service.name : fmt::format("{} ({}{})", service.name, text, more ? " and more" : "");
}

}  // namespace

void Broker::tell_handed(const Admission& admission, const std::vector<CommitResult>& handed) {
        const auto& service = admission.service->name;
        tell_routes(service);
        for (const auto& one : handed) {
                Entry entry = entry_of(Action::kRegister, service, one.added);
                entry.result = to_string(ResultCode::kOk);
                entry.rule = admission.rule;
                entry.message = fmt::format("{} of {} serves {}", name_of(one.added), one.added.registrant.to_string(),
                                            served_by(*admission.service, one.added));
                for (const auto& old : one.displaced) {
                        Entry handover = entry;
                        handover.action = Action::kHandover;
                        handover.message = fmt::format("{} serves from {} now, no longer from {}", service,
                                                       one.added.registrant.to_string(), old.registrant.to_string());
                        handover.old_unit = old.registrant.unit;
                        handover.old_cookie = old.cookie;
                        handover.old_uid = old.registrant.uid;
                        handover.old_pid = old.registrant.pid;
                        audit_.write(std::move(handover));
                }
                audit_.write(std::move(entry));
        }
}

void Broker::tell_left_out() {
        if (const auto thrown = thrown_in_callbacks.exchange(0); thrown > 0) {
                note(3, fmt::format(
                                "{} events were not handled to their end, for want of memory (MemoryMax= of the unit?)",
                                thrown));
        }
        for (const auto& [unit, first_uid, last_uid, count] : refusals_.take_left_out(steady_usec())) {
                const auto uids = first_uid == last_uid ? fmt::format("uid {}", first_uid)
                                                        : fmt::format("uids {} to {}", first_uid, last_uid);
                audit_.write(
                        {.action = Action::kRefuse,
                         .priority = 4,
                         .message = fmt::format("{} refusals of {}{}{} were not written one by one", count,
                                                unit.empty() ? "" : "unit ", unit.empty() ? "" : unit + ", ", uids),
                         .unit = unit});
        }
}

std::vector<std::string> Broker::warn(const Admission& admission, const Peer& peer,
                                      const std::vector<SocketFacts>& sockets) {
        constexpr std::size_t kGroupsShown = 4;
        const Service& service = *admission.service;
        Served served{};
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        served[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)] =
                                first_choice(registry_.registrations(service.name), protocol, family) != nullptr;
                }
        }
        auto warnings = registration_warnings(service, sockets, served);
        const auto before = warnings.size();
        for (const auto& socket : sockets) {
                for (const auto& other : registry_.bound_alike(service.name, socket)) {
                        if (warnings.size() < before + kGroupsShown) {
                                warnings.push_back(group_warning(service, socket, other));
                        }
                }
        }
        for (const auto& warning : warnings) {
                audit_.write(
                        {.action = Action::kWarn,
                         .priority = 4,
                         .message = fmt::format("{} was registered by {}: {}", service.name, peer.to_string(), warning),
                         .service = service.name,
                         .result = std::string(to_string(ResultCode::kOk)),
                         .rule = admission.rule,
                         .unit = peer.unit,
                         .has_peer = true,
                         .uid = peer.uid,
                         .pid = peer.pid});
        }
        return warnings;
}

// The first in full, for each is an entry of its own and the writer's queue is short; who wants all of them asks
// `sockbrokerctl verify`.
void Broker::tell_diagnostics(const std::vector<Diagnostic>& all, std::size_t errors) {
        static constexpr std::size_t kInJournal = 100;
        const auto told = std::min(all.size(), kInJournal);
        for (const auto& diagnostic : std::span(all).first(told)) {
                const bool error = diagnostic.severity == Severity::kError;
                audit_.write({.action = Action::kDiagnostic,
                              .priority = error ? 3 : 4,
                              .message = diagnostic.to_string(),
                              .rule = diagnostic.line == 0 ? diagnostic.file
                                                           : fmt::format("{}:{}", diagnostic.file, diagnostic.line)});
        }
        if (told < all.size()) {
                note(errors > 0 ? 3 : 4,
                     fmt::format("only the first {} of {} are written here: sockbrokerctl verify lists more", told,
                                 errors > 0 ? fmt::format("{} errors, and warnings", errors)
                                            : fmt::format("{} warnings", all.size())));
        }
}

}  // namespace sockbroker
