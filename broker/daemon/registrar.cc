// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/registrar.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/entries.h"
#include "broker/policy/warnings.h"

namespace sockbroker {

namespace {

// What a hand has looked at.
std::expected<std::vector<Offer>, Refusal> offers_of(const Incoming& message) {
        std::vector<Offer> offers;
        if (message.not_taken) {
                return std::unexpected(*message.not_taken);
        }
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
                if (!registration.serves_in(binding.protocol, binding.prefix.address.family)) {
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

Entry handover_from(const Registration& old, const Entry& registered, std::string message) {
        Entry entry = registered;
        entry.action = Action::kHandover;
        entry.message = std::move(message);
        entry.old_unit = old.registrant.unit;
        entry.old_cookie = old.cookie;
        entry.old_uid = old.registrant.uid;
        entry.old_pid = old.registrant.pid;
        return entry;
}

}  // namespace

Registrar::Registrar(const PolicyInForce& policy, Registry& registry, Departures& departures, ReplyPrograms& replies,
                     HeldSockets& held, Routes& routes, Refusals& refusals, ServiceEntries& entries, RateSettings rate,
                     std::string netns, std::uint64_t netns_cookie)
        : policy_(policy),
          registry_(registry),
          departures_(departures),
          replies_(replies),
          held_(held),
          routes_(routes),
          refusals_(refusals),
          entries_(entries),
          families_(policy, registry, entries),
          rates_(rate),
          netns_(std::move(netns)),
          netns_cookie_(netns_cookie) {}

Answer Registrar::store(const Admission& admission, const Incoming& message, const Peer& peer, const Wish& wish) {
        const Service& service = *admission.service;
        if (const auto wait = rates_.take(service.name, steady_usec()); wait != 0) {
                return refusals_.refuse(
                        {ResultCode::kRateLimited,
                         fmt::format("too many sockets are registered for {}, ask again in {} ms (RateLimitBurst= "
                                     "in sockbrokerd.conf)",
                                     service.name, wait / 1000 + 1),
                         {}},
                        peer, service.name);
        }
        auto found = offers_of(message);
        if (!found) {
                return refusals_.refuse(found.error(), peer, service.name);
        }
        std::vector<SocketFacts> all;
        for (const auto& offer : *found) {
                all.push_back(offer.facts);
        }
        auto distinct = distinct_sockets(all);
        // Those that keep their place come last: they take no slot, and are in nobody's way.
        const auto kept = std::ranges::stable_partition(
                distinct, [&](std::size_t i) { return !wish.inherit || !registry_.has(service.name, all[i].cookie); });
        const auto fresh = distinct.size() - kept.size();
        std::vector<Offer> offers;
        std::vector<SocketFacts> facts;  // as they are to serve
        for (const std::size_t i : distinct) {
                offers.push_back((*found)[i]);
                offers.back().inherit = offers.size() > fresh;
                facts.push_back(all[i]);
                if (wish.family && all[i].family == SocketFamily::kDual) {
                        facts.back().family = *wish.family == Family::kIpv4 ? SocketFamily::kIpv4 : SocketFamily::kIpv6;
                }
        }
        const auto assignments = check_sockets(*policy_, service, facts, netns_cookie_);
        if (!assignments) {
                auto refusal = assignments.error();
                if (refusal.code == ResultCode::kForeignNetns && !netns_.empty()) {
                        refusal.message = fmt::format(
                                "this is the broker of network namespace {0}: {1}; or, if {0} was removed and made "
                                "anew since it was started, restart it",
                                netns_, refusal.message);
                }
                return refusals_.refuse(refusal, peer, service.name);
        }
        departures_.gone(registry_.refresh_holders(service.name));
        for (std::size_t i = 0; i < offers.size(); i++) {
                offers[i].serves = (*assignments)[i];
        }
        const auto refusal = [&] {
                const std::span among = std::span(offers).first(fresh);
                return fresh == 0 ? std::nullopt
                                  : check_occupancy(*policy_, service, std::span(facts).first(fresh),
                                                    std::span(*assignments).first(fresh),
                                                    registry_.occupancy(service.name, peer, among));
        };
        if (refusal()) {  // by what is remembered; what counts is what lives
                departures_.gone(registry_.refresh(service.name));
                if (const auto still = refusal()) {
                        return refusals_.refuse(*still, peer, service.name);
                }
        }
        forget_displaced(service);
        make_room(fresh);
        if (!registry_.has_room(fresh)) {
                keep_places(service.name, offers);
        }
        // Before the first datagram comes.
        const auto replies = replies_.prepare(service, peer, facts);
        const auto handed = registry_.commit(service, peer, offers);
        if (!handed) {
                return refusals_.refuse(handed.error(), peer, service.name);
        }
        held_.hold(service, *handed, message);
        tell_handed(admission, *handed);
        Answer taken{.message = fmt::format("registered {} socket{} for {}", offers.size(),
                                            offers.size() == 1 ? "" : "s", service.name),
                     .warnings = warn(admission, peer, facts, wish.on_behalf)};
        if (auto wrong = replies_.tell(service, peer, replies)) {
                taken.warnings.push_back(std::move(*wrong));
        }
        return taken;
}

Answer Registrar::remove(const std::string& name, bool any, const Peer& peer) {
        if (policy_->find(name) == nullptr) {
                return refusals_.refuse_unknown(name, peer);
        }
        const auto gone = [&](const std::string&, const Registration& registration) {
                return any || is_owner(peer, registration);
        };
        departures_.gone(registry_.refresh(name));
        const auto why = fmt::format("asked by {}", peer.to_string());  // before anything goes
        const bool nothing_there = registry_.registrations(name).empty();
        const auto departures = registry_.remove(name, gone);
        if (!departures) {
                return refusals_.refuse({ResultCode::kInternal, departures.error().text(), {}}, peer, name);
        }
        if (departures->empty()) {
                const auto code = nothing_there ? ResultCode::kNotHeld : ResultCode::kNotPermitted;
                return refusals_.refuse(
                        {code,
                         nothing_there ? fmt::format("{} has no socket here", name)
                                       : fmt::format("the sockets of {} were registered by others, only root may "
                                                     "unregister them",
                                                     name),
                         {}},
                        peer, name);
        }
        departures_.tell(departures, Action::kUnregister, why);
        return {.message = fmt::format("unregistered {} socket{} of {}", departures->size(),
                                       departures->size() == 1 ? "" : "s", name)};
}

// They serve again if the newest goes, and flows that stay are theirs: so few are enough for none.
void Registrar::forget_displaced(const Service& service) {
        constexpr std::size_t kAtLeast = 256;
        const auto most = std::max<std::size_t>(service.max_sockets, kAtLeast);
        departures_.tell(registry_.forget_displaced(service.name, most), Action::kGone,
                         fmt::format("it was displaced, and the service has {} younger ones that were", most));
}

// Where every place is taken: what is registered once more needs none, if it is what a new one would be.
void Registrar::keep_places(const std::string& service, std::vector<Offer>& offers) const {
        const auto all = registry_.registrations(service);
        const bool share = registry_.distribution(service).share;
        const auto is_first = [&](const Registration& one, Family family) {
                return share || !one.serves_in(one.protocol, family) ||
                       first_choice(all, one.protocol, family)->slot == one.slot;
        };
        for (auto& offer : offers) {
                const auto one = std::ranges::find(all, offer.facts.cookie, &Registration::cookie);
                offer.inherit = offer.inherit || (one != all.end() && one->serves.ipv4 == offer.serves.ipv4 &&
                                                  one->serves.ipv6 == offer.serves.ipv6 &&
                                                  is_first(*one, Family::kIpv4) && is_first(*one, Family::kIpv6));
        }
}

void Registrar::make_room(std::size_t slots) {
        using std::chrono::steady_clock;
        constexpr auto kPart = std::chrono::milliseconds(2);
        constexpr std::int64_t kInAllUsec = 20'000;  // some ten thousand; the others wait for the next round
        // Who asks again and again while nothing was closed takes a tenth of the loop's time by it at most.
        constexpr std::int64_t kPauseTimes = 10;
        departures_.tell(registry_.make_room(slots), Action::kGone, "it was displaced, and others need its place");
        const auto began = steady_usec();
        if (registry_.has_room(slots) || began < no_sweep_until_usec_) {
                return;
        }
        // What counts is what lives. Goes on where the time was up before, once around.
        bool from_the_first = sweep_.done;
        while (!registry_.has_room(slots) && steady_usec() - began < kInAllUsec) {
                departures_.gone(registry_.refresh_some(sweep_, steady_clock::now() + kPart));
                if (sweep_.done && std::exchange(from_the_first, true)) {
                        break;
                }
        }
        const auto now = steady_usec();
        no_sweep_until_usec_ = registry_.has_room(slots) ? 0 : now + kPauseTimes * (now - began);
}

void Registrar::tell_handed(const Admission& admission, const std::vector<CommitResult>& handed) {
        const auto& service = admission.service->name;
        routes_.look_at(service);
        for (const auto& one : handed) {
                Entry entry = entry_of(Action::kRegister, service, one.added);
                entry.result = to_string(ResultCode::kOk);
                entry.rule = admission.rule;
                entry.message = one.inherited
                                        ? fmt::format("{} for {} is of {} now, and keeps its place",
                                                      socket_name(one.added), service, one.added.registrant.to_string())
                                        : fmt::format("{} of {} serves {}", socket_name(one.added),
                                                      one.added.registrant.to_string(),
                                                      served_by(*admission.service, one.added));
                for (const auto& old : one.displaced) {
                        entries_.write(handover_from(
                                old, entry,
                                fmt::format("{} serves from {} now, no longer from {}", service,
                                            one.added.registrant.to_string(), old.registrant.to_string())));
                }
                for (const auto& [old, family] : one.narrowed) {
                        const bool ipv4 = family == Family::kIpv4;
                        entries_.write(handover_from(
                                old, entry,
                                fmt::format("{} serves {} from {} now, no longer from {}, whose socket goes on with {}",
                                            service, ipv4 ? "IPv4" : "IPv6", one.added.registrant.to_string(),
                                            old.registrant.to_string(), ipv4 ? "IPv6" : "IPv4")));
                }
                entries_.write(std::move(entry));
        }
}

std::vector<std::string> Registrar::warn(const Admission& admission, const Peer& peer,
                                         const std::vector<SocketFacts>& sockets, bool on_behalf) {
        constexpr std::size_t kGroupsShown = 4;
        const Service& service = *admission.service;
        auto warnings = port_warnings(service, sockets);
        const auto before = warnings.size();
        std::vector<std::uint64_t> cookies;
        for (const auto& socket : sockets) {
                cookies.push_back(socket.cookie);
                for (const auto& other : registry_.bound_alike(service.name, socket)) {
                        if (warnings.size() < before + kGroupsShown) {
                                warnings.push_back(group_warning(service, socket, other));
                        }
                }
        }
        for (const auto& warning : warnings) {
                if (!entries_.is_news(service.name, cookies, warning)) {
                        continue;
                }
                Entry entry =
                        entry_by(peer, Action::kWarn, 4, service.name,
                                 fmt::format("{} was registered by {}: {}", service.name, peer.to_string(), warning));
                entry.result = to_string(ResultCode::kOk);
                entry.rule = admission.rule;
                entries_.write(std::move(entry));
        }
        auto of_families = families_.look_at(admission, sockets);
        if (!on_behalf) {
                std::ranges::move(of_families, std::back_inserter(warnings));
        }
        return warnings;
}

}  // namespace sockbroker
