// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that come: what stands in their way, the one transaction that makes them a service's, and what becomes of
// them when their service goes and comes back.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/registry/registry.h"

namespace sockbroker {

namespace {

std::int64_t now_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t monotonic_usec() {  // CLOCK_MONOTONIC in libstdc++, as systemd's time stamps
        using namespace std::chrono;
        return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

ResultCode code_of(const Error& error) {
        return error.errnum == EBUSY ? ResultCode::kQuota : ResultCode::kInternal;
}

// A socket that was fit when it was looked at may be closed, or no listener any more, when the kernel is to take it:
// its owner's doing, and no fault of the broker.
Refusal not_installed(const Error& error, const Registration& registration) {
        if (error.errnum != ENOENT && error.errnum != EOPNOTSUPP) {
                return {code_of(error), error.text(), {}};
        }
        return {registration.protocol == Protocol::kTcp ? ResultCode::kNotListening : ResultCode::kWrongSocket,
                fmt::format("the socket {} was closed, shut down or connected before it could be registered: keep it "
                            "as it is until the answer comes",
                            registration.bound.to_string()),
                {}};
}

Registrant to_record(ServiceId id, const Registration& registration) {
        return Registrant{
                .service = id,
                .cookie = registration.cookie,
                .since_usec = registration.since_usec,
                .pid = registration.registrant.pid,
                .uid = registration.registrant.uid,
                .gid = registration.registrant.gid,
                .protocol = registration.protocol,
                .family = static_cast<std::uint8_t>(registration.family),
                .serves_ipv4 = registration.serves.ipv4,
                .serves_ipv6 = registration.serves.ipv6,
                .bound = registration.bound,
                .registered_usec = registration.registered_usec,
                .gone_usec = registration.gone_usec,
                .hold_until_usec = registration.hold_until_usec,
                .unit = registration.registrant.unit,
                .user_name = registration.registrant.user_name,
                .group_name = registration.registrant.group_name,
        };
}

// Where one socket serves at a time: whose place those that were added take, of each protocol and family.
void note_displaced(std::span<const Registration> before, std::span<const Registration> after,
                    std::vector<CommitResult>& handed) {
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        const auto* old = first_choice(before, protocol, family);
                        const auto* now = first_choice(after, protocol, family);
                        if (old == nullptr || now == nullptr || old->cookie == now->cookie) {
                                continue;
                        }
                        const auto by = std::ranges::find_if(
                                handed, [&](const CommitResult& one) { return one.added.slot == now->slot; });
                        if (by == handed.end()) {
                                continue;
                        }
                        const bool goes_on = std::ranges::any_of(after, [&](const Registration& one) {
                                return one.cookie == old->cookie && is_live(after, {}, one);
                        });
                        const auto known = std::ranges::find(by->displaced, old->slot, &Registration::slot);
                        if (goes_on) {
                                by->narrowed.push_back({.old = *old, .family = family});
                        } else if (known == by->displaced.end()) {
                                by->displaced.push_back(*old);
                        }
                }
        }
}

// Null: it is not there.
const Registration* find_socket(std::span<const Registration> all, std::uint64_t cookie) {
        const auto found = std::ranges::find(all, cookie, &Registration::cookie);
        return found == all.end() ? nullptr : &*found;
}

// From now on, and live.
void pass_to(Registration& registration, const Peer& peer) {
        registration.registrant = peer;
        registration.registered_usec = monotonic_usec();
        registration.gone_usec = 0;
        registration.hold_until_usec = 0;
}

}  // namespace

Occupancy Registry::occupancy(const std::string& service, const Peer& peer, std::span<const Offer> offers) const {
        Occupancy occupancy;
        const Distribution how = distribution(service);
        std::uint32_t others = 0;  // without those that are offered again, or held for who offers now
        std::uint32_t still_live = 0;
        bool seen[2][2] = {};  // by protocol and family: whether its first choice was met
        for (const auto& one : registrations(service)) {
                const auto same = [&](const Offer& offer) { return offer.facts.cookie == one.cookie; };
                if (std::ranges::any_of(offers, same) || is_succeeded(one, peer, offers, how)) {
                        continue;
                }
                others++;
                bool lives_on = false;
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        const auto p = static_cast<std::size_t>(one.protocol);
                        const auto f = static_cast<std::size_t>(family);
                        if (!one.serves_in(one.protocol, family) || std::exchange(seen[p][f], true)) {
                                continue;
                        }
                        if (!one.held()) {  // that one is nobody's
                                occupancy.holder[p][f] = one.registrant.to_string();
                        }
                        lives_on = lives_on || std::ranges::none_of(offers, [&](const Offer& offer) {
                                           return offer.facts.protocol == one.protocol && offer.serves_in(family);
                                   });
                }
                still_live += lives_on ? 1 : 0;
        }
        occupancy.live = how.share ? others : still_live;
        return occupancy;
}

std::expected<std::vector<CommitResult>, Refusal> Registry::commit(const Service& service, const Peer& peer,
                                                                   std::span<const Offer> offers) {
        const auto found = services_.find(service.name);
        if (found == services_.end()) {
                return std::unexpected(Refusal{ResultCode::kInternal, "service has no place in the kernel", {}});
        }
        ServiceState& state = found->second;
        std::vector<CommitResult> handed;
        handed.reserve(offers.size());
        std::vector<std::pair<Slot, Registrant>> inherited;  // as they were
        inherited.reserve(static_cast<std::size_t>(std::ranges::count_if(offers, &Offer::inherit)));
        // Whatever ends this before the switch, an exception too, leaves no slot behind, and records as they were.
        struct Undo {
                Dataplane& dataplane;
                const std::vector<CommitResult>& handed;
                const std::vector<std::pair<Slot, Registrant>>& inherited;
                bool wanted = true;

                Undo(Dataplane& d, const std::vector<CommitResult>& h,
                     const std::vector<std::pair<Slot, Registrant>>& i)
                        : dataplane(d), handed(h), inherited(i) {}
                Undo(const Undo&) = delete;
                Undo& operator=(const Undo&) = delete;
                ~Undo() {
                        for (std::size_t i = 0; wanted && i < handed.size(); i++) {
                                if (!handed[i].inherited) {
                                        dataplane.remove(handed[i].added.slot);
                                }
                        }
                        for (std::size_t i = 0; wanted && i < inherited.size(); i++) {
                                (void)dataplane.set_registrant(inherited[i].first, inherited[i].second);
                        }
                }
        } undo(dataplane_, handed, inherited);
        for (const auto& offer : offers) {
                if (const auto* there =
                            offer.inherit ? find_socket(state.registrations, offer.facts.cookie) : nullptr) {
                        handed.push_back({.added = *there, .displaced = {}, .narrowed = {}, .inherited = true});
                        Registration& same = handed.back().added;
                        pass_to(same, peer);
                        const auto record = to_record(state.id, same);
                        inherited.emplace_back(same.slot, to_record(state.id, *there));
                        if (const auto done = dataplane_.set_registrant(same.slot, record); !done) {
                                return std::unexpected(not_installed(done.error(), same));
                        }
                        continue;
                }
                last_since_usec_ = std::max(last_since_usec_ + 1, now_usec());
                Registration registration{
                        .cookie = offer.facts.cookie,
                        .since_usec = last_since_usec_,
                        .protocol = offer.facts.protocol,
                        .family = offer.facts.family,
                        .serves = offer.serves,
                        .bound = offer.facts.bound,
                        .registrant = peer,
                        .registered_usec = monotonic_usec(),
                };
                const auto record = to_record(state.id, registration);
                const auto slot = offer.fd >= 0 ? dataplane_.install(offer.fd, record)
                                  : offer.errnum != 0
                                          ? fail(offer.errnum, fmt::format("cannot offer the socket {} to the kernel",
                                                                           registration.bound.to_string()))
                                          : dataplane_.install_staged(offer.entry, record);
                if (!slot) {
                        return std::unexpected(not_installed(slot.error(), registration));
                }
                registration.slot = *slot;
                handed.push_back(
                        {.added = std::move(registration), .displaced = {}, .narrowed = {}});  // which needs no memory
        }

        std::vector<Registration> after;
        after.reserve(handed.size() + state.registrations.size());
        for (auto one = handed.rbegin(); one != handed.rend(); one++) {
                if (!one->inherited) {
                        after.push_back(one->added);
                }
        }
        for (const auto& registration : state.registrations) {
                const auto again = std::ranges::find_if(
                        handed, [&](const CommitResult& other) { return other.added.cookie == registration.cookie; });
                if (again != handed.end() && again->inherited) {
                        after.push_back(again->added);
                } else if (again == handed.end() && !is_succeeded(registration, peer, offers, state.distribution)) {
                        after.push_back(registration);
                }
        }
        if (!std::ranges::is_sorted(after, is_before)) {  // one was held, and is not any more
                std::ranges::sort(after, is_before);
        }
        if (!state.distribution.share) {
                note_displaced(state.registrations, after, handed);
        }
        // The switch. Nothing that may fail comes after it.
        if (const auto done = replace_registrations(state, std::move(after), state.distribution); !done) {
                return std::unexpected(Refusal{code_of(done.error()), done.error().text(), {}});
        }
        undo.wanted = false;
        return handed;
}

// The record first: a broker that dies in between finds an order that its targets do not have yet, and mends it.
Result<void> Registry::rewrite(const std::string& service, std::uint64_t cookie,
                               const std::function<void(Registration&)>& change) {
        const auto state = services_.find(service);
        if (state == services_.end()) {
                return fail(ENOENT, fmt::format("service {} has no place in the kernel", service));
        }
        auto after = state->second.registrations;
        const auto one = std::ranges::find(after, cookie, &Registration::cookie);
        if (one == after.end()) {
                return fail(ENOENT, fmt::format("service {} has no socket {:016x}", service, cookie));
        }
        change(*one);
        if (auto done = dataplane_.set_registrant(one->slot, to_record(state->second.id, *one)); !done) {
                return done;
        }
        std::ranges::sort(after, is_before);
        return replace_registrations(state->second, std::move(after), state->second.distribution);
}

Result<void> Registry::set_gone(const std::string& service, std::uint64_t cookie, std::int64_t gone_usec) {
        return rewrite(service, cookie, [&](Registration& one) { one.gone_usec = gone_usec; });
}

Result<void> Registry::set_hold_until(const std::string& service, std::uint64_t cookie, std::int64_t until_usec) {
        return rewrite(service, cookie, [&](Registration& one) { one.hold_until_usec = until_usec; });
}

Result<void> Registry::give_back(const std::string& service, std::uint64_t cookie, const Peer& peer) {
        return rewrite(service, cookie, [&](Registration& one) { pass_to(one, peer); });
}

}  // namespace sockbroker
