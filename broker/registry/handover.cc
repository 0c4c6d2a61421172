// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that come: what stands in their way, the one transaction that makes them a service's, and what becomes of
// them when their service goes and comes back.
#include <algorithm>
#include <cerrno>
#include <chrono>

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

}  // namespace

Occupancy Registry::occupancy(const std::string& service, const Peer& peer, std::span<const Offer> offers) const {
        Occupancy occupancy;
        std::vector<Registration> others;  // without those that are offered again, or held for who offers now
        for (const auto& registration : registrations(service)) {
                const auto same = [&](const Offer& offer) { return offer.facts.cookie == registration.cookie; };
                if (std::ranges::none_of(offers, same) &&
                    !is_succeeded(registration, peer, offers, distribution(service))) {
                        others.push_back(registration);
                }
        }
        std::vector<Slot> still_live;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        const auto* holder = first_choice(others, protocol, family);
                        if (holder == nullptr) {
                                continue;
                        }
                        if (!holder->held()) {  // that one is nobody's
                                occupancy.holder[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)] =
                                        holder->registrant.to_string();
                        }
                        const auto taken_over = [&](const Offer& offer) {
                                return offer.facts.protocol == protocol &&
                                       (family == Family::kIpv4 ? offer.serves.ipv4 : offer.serves.ipv6);
                        };
                        if (std::ranges::none_of(offers, taken_over) &&
                            std::ranges::find(still_live, holder->slot) == still_live.end()) {
                                still_live.push_back(holder->slot);
                        }
                }
        }
        occupancy.live = static_cast<std::uint32_t>(distribution(service).share ? others.size() : still_live.size());
        return occupancy;
}

std::expected<std::vector<CommitResult>, Refusal> Registry::commit(const Service& service, const Peer& peer,
                                                                   std::span<const Offer> offers) {
        const auto found = services_.find(service.name);
        if (found == services_.end()) {
                return std::unexpected(Refusal{ResultCode::kInternal, "service has no place in the kernel", {}});
        }
        ServiceState& state = found->second;
        std::vector<Registration> added;
        added.reserve(offers.size());
        // Whatever ends this before the switch, an exception too, leaves no slot behind.
        struct Undo {
                Dataplane& dataplane;
                const std::vector<Registration>& added;
                bool wanted = true;

                Undo(Dataplane& d, const std::vector<Registration>& a) : dataplane(d), added(a) {}
                Undo(const Undo&) = delete;
                Undo& operator=(const Undo&) = delete;
                ~Undo() {
                        for (std::size_t i = 0; wanted && i < added.size(); i++) {
                                dataplane.remove(added[i].slot);
                        }
                }
        } undo(dataplane_, added);
        for (const auto& offer : offers) {
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
                added.push_back(registration);
        }

        std::vector<Registration> after(added.rbegin(), added.rend());
        for (const auto& registration : state.registrations) {
                if (std::ranges::find(added, registration.cookie, &Registration::cookie) == added.end() &&
                    !is_succeeded(registration, peer, offers, state.distribution)) {
                        after.push_back(registration);
                }
        }
        // Displaced sockets are kept for their owners to see, but never more of them than the quota.
        std::size_t draining = 0;
        std::erase_if(after, [&, whole = after](const Registration& registration) {
                return !is_live(whole, state.distribution, registration) && ++draining > service.max_sockets;
        });
        const std::vector<Registration> before = state.registrations;
        if (const auto done = replace_registrations(state, std::move(after)); !done) {
                return std::unexpected(Refusal{code_of(done.error()), done.error().text(), {}});
        }
        undo.wanted = false;

        std::vector<CommitResult> handed;
        for (const auto& registration : added) {
                CommitResult& one = handed.emplace_back();
                one.added = registration;
                for (const auto& old : before) {
                        const bool loses = is_live(before, state.distribution, old) &&
                                           old.cookie != registration.cookie &&
                                           !is_live(state.registrations, state.distribution, old) &&
                                           old.protocol == registration.protocol &&
                                           ((old.serves.ipv4 && registration.serves.ipv4) ||
                                            (old.serves.ipv6 && registration.serves.ipv6));
                        if (loses) {
                                one.displaced.push_back(old);
                        }
                }
        }
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
        return replace_registrations(state->second, std::move(after));
}

Result<void> Registry::set_gone(const std::string& service, std::uint64_t cookie, std::int64_t gone_usec) {
        return rewrite(service, cookie, [&](Registration& one) { one.gone_usec = gone_usec; });
}

Result<void> Registry::set_hold_until(const std::string& service, std::uint64_t cookie, std::int64_t until_usec) {
        return rewrite(service, cookie, [&](Registration& one) { one.hold_until_usec = until_usec; });
}

Result<void> Registry::give_back(const std::string& service, std::uint64_t cookie, const Peer& peer) {
        return rewrite(service, cookie, [&](Registration& one) {
                one.gone_usec = 0;
                one.hold_until_usec = 0;
                one.registered_usec = monotonic_usec();
                one.registrant = peer;
        });
}

}  // namespace sockbroker
