// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/registry/registry.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "broker/policy/conflicts.h"

namespace sockbroker {

namespace {

constexpr std::array kProtocols = {Protocol::kTcp, Protocol::kUdp};
constexpr std::array kFamilies = {Family::kIpv4, Family::kIpv6};

std::int64_t now_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t monotonic_usec() {  // CLOCK_MONOTONIC in libstdc++, as systemd's time stamps
        using namespace std::chrono;
        return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

Registration from_record(Slot slot, const Registrant& record) {
        return Registration{
                .slot = slot,
                .cookie = record.cookie,
                .since_usec = record.since_usec,
                .protocol = record.protocol,
                .family = static_cast<SocketFamily>(record.family),
                .serves = {.ipv4 = record.serves_ipv4, .ipv6 = record.serves_ipv6},
                .bound = record.bound,
                .registrant = {.pid = record.pid,
                               .uid = record.uid,
                               .gid = record.gid,
                               .unit = record.unit,
                               .nested = record.nested},
                .registered_usec = record.registered_usec,
                .gone_usec = record.gone_usec,
        };
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
                .unit = registration.registrant.unit,
                .nested = registration.registrant.nested,
        };
}

// Whether the kernel's targets name the slot anywhere.
bool names(const Targets& targets, Slot slot) {
        return std::ranges::any_of(targets.slots, [slot](const auto& families) {
                return std::ranges::any_of(
                        families, [slot](const auto& slots) { return std::ranges::find(slots, slot) != slots.end(); });
        });
}

// A slot that no target names is either displaced beyond the reserve, and then each of its places is filled by those
// before it, or the remains of a transaction that never came to its switch.
bool displaced(const Registration& one, std::span<const Registration> in_order, const Targets& targets) {
        for (const auto protocol : kProtocols) {
                for (const auto family : kFamilies) {
                        const auto named_before = [&](const Registration& other) {
                                return is_before(other, one) && other.serves_in(protocol, family) &&
                                       names(targets, other.slot);
                        };
                        if (one.serves_in(protocol, family) && std::ranges::none_of(in_order, named_before)) {
                                return false;
                        }
                }
        }
        return true;
}

}  // namespace

void Registry::take_up() {
        seats_.clear();
        const auto& service_names = dataplane_.service_names();
        for (ServiceId id = 1; id < service_names.size(); id++) {
                if (!service_names[id].empty()) {
                        seats_[service_names[id]].id = id;
                }
        }
        for (const auto& [slot, record] : dataplane_.registrants()) {
                last_since_usec_ = std::max(last_since_usec_, record.since_usec);
                const bool known = record.service < service_names.size() && !service_names[record.service].empty();
                if (known) {
                        seats_[service_names[record.service]].registrations.push_back(from_record(slot, record));
                } else {
                        dataplane_.remove(slot);
                }
        }
        for (auto& [service, seat] : seats_) {
                auto& all = seat.registrations;
                std::ranges::sort(all, is_before);
                const Targets targets = dataplane_.targets(seat.id);
                seat.spread = {targets.share, targets.reuse_port};
                std::vector<Registration> kept;
                for (const auto& registration : all) {
                        // Of a socket that was handed over again, the older place was about to be given up.
                        const bool again =
                                std::ranges::find(kept, registration.cookie, &Registration::cookie) != kept.end();
                        if (!again && (names(targets, registration.slot) || displaced(registration, all, targets))) {
                                kept.push_back(registration);
                        } else {
                                dataplane_.remove(registration.slot);
                        }
                }
                all = std::move(kept);
                // The same targets as a rule, but of a broker that died while it noted that a service was gone.
                (void)replace_registrations(seat, all);
        }
}

Result<std::vector<Departure>> Registry::set_policy(const Policy& policy, const Interfaces& interfaces) {
        const auto change = begin_change(policy);
        if (!change) {
                return std::unexpected(change.error());
        }
        if (const auto done = install(*change, policy, interfaces); !done) {
                abandon_change(*change);
                return std::unexpected(done.error());
        }
        return finish_change(*change, policy);
}

Result<Registry::Change> Registry::begin_change(const Policy& policy) {
        Change change;
        for (const auto& service : policy.services) {
                if (const auto seat = seats_.find(service.name); seat != seats_.end()) {
                        change.ids.emplace(service.name, seat->second.id);
                        continue;
                }
                const auto id = dataplane_.add_service(service.name);
                if (!id) {
                        abandon_change(change);
                        return std::unexpected(id.error());
                }
                change.fresh.push_back(*id);
                change.ids.emplace(service.name, *id);
        }
        auto counters = dataplane_.assign_counters(counted_bindings(policy));
        if (!counters) {
                abandon_change(change);
                return std::unexpected(counters.error());
        }
        change.counters = std::move(*counters);
        return change;
}

Result<void> Registry::install(const Change& change, const Policy& policy, const Interfaces& interfaces) const {
        return dataplane_.set_rules(rules_of(
                policy, [&](const std::string& name) { return change.ids.at(name); }, interfaces, change.counters));
}

void Registry::abandon_change(const Change& change) {
        for (const auto id : change.fresh) {
                dataplane_.remove_service(id);
        }
        if (counters_) {
                dataplane_.keep_counters(*counters_);
        }
}

std::vector<Departure> Registry::finish_change(const Change& change, const Policy& policy) {
        const auto& ids = change.ids;
        counters_ = change.counters;
        dataplane_.keep_counters(*counters_);
        std::vector<Departure> departures;
        for (auto seat = seats_.begin(); seat != seats_.end();) {
                if (ids.contains(seat->first)) {
                        seat++;
                        continue;
                }
                // No rule names the service any more, so nothing can reach its sockets.
                dataplane_.remove_service(seat->second.id);
                for (auto& registration : seat->second.registrations) {
                        dataplane_.remove(registration.slot);
                        departures.push_back({seat->first, std::move(registration)});
                }
                seat = seats_.erase(seat);
        }
        for (const auto& service : policy.services) {
                Seat& seat = seats_[service.name];
                seat.id = ids.at(service.name);
                // The rules stand. One that cannot be told so now is told by the next reload.
                (void)set_spread(seat, {service.handover == Handover::kShare, service.reuse_port});
        }
        return departures;
}

Result<void> Registry::set_spread(Seat& seat, Spread spread) {
        if (seat.spread == spread) {
                return {};
        }
        const Spread before = std::exchange(seat.spread, spread);
        auto done = replace_registrations(seat, seat.registrations);
        if (!done) {
                seat.spread = before;
        }
        return done;
}

// Makes `kept` the registrations of the service: targets first, then the slots that no target names any more.
Result<void> Registry::replace_registrations(Seat& seat, std::vector<Registration> kept) {
        const Targets targets = targets_of(kept, seat.spread);
        if (targets != dataplane_.targets(seat.id)) {
                if (auto done = dataplane_.set_targets(seat.id, targets); !done) {
                        return done;
                }
        }
        for (const auto& registration : seat.registrations) {
                if (std::ranges::find(kept, registration.slot, &Registration::slot) == kept.end()) {
                        dataplane_.remove(registration.slot);
                }
        }
        seat.registrations = std::move(kept);
        return {};
}

Result<std::vector<Departure>> Registry::remove(const std::string& service, const Gone& gone) {
        std::vector<Departure> departures;
        const auto seat = seats_.find(service);
        if (seat == seats_.end()) {
                return departures;
        }
        const auto& all = seat->second.registrations;
        std::vector<bool> stays(all.size(), true);
        for (std::size_t i = 0; i < all.size(); i++) {
                if (gone(service, all[i])) {
                        departures.push_back({service, all[i]});
                        stays[i] = false;
                }
        }
        if (departures.empty()) {
                return departures;  // the rule, where sockets are asked whether they live: nothing is copied for it
        }
        std::vector<Registration> kept;
        for (std::size_t i = 0; i < all.size(); i++) {
                if (stays[i]) {
                        kept.push_back(all[i]);
                }
        }
        if (auto done = replace_registrations(seat->second, std::move(kept)); !done) {
                return std::unexpected(done.error());
        }
        return departures;
}

Result<std::vector<Departure>> Registry::remove_all(const Gone& gone) {
        std::vector<Departure> departures;
        for (const auto& [service, seat] : seats_) {
                auto some = remove(service, gone);
                if (!some) {
                        return some;
                }
                std::ranges::move(*some, std::back_inserter(departures));
        }
        return departures;
}

bool Registry::is_dead(const std::string&, const Registration& registration) const {
        const auto family = registration.serves.ipv4 ? Family::kIpv4 : Family::kIpv6;
        return dataplane_.cookie(registration.slot) != registration.cookie ||
               !dataplane_.takes_look_ups(registration.slot, registration.protocol, family);
}

Result<std::vector<Departure>> Registry::refresh(const std::string& service) {
        return remove(service, std::bind_front(&Registry::is_dead, this));
}

Result<std::vector<Departure>> Registry::refresh_holders(const std::string& service) {
        const auto all = registrations(service);
        const auto how = spread(service);
        if (how.share) {
                return std::vector<Departure>{};  // nobody is displaced
        }
        std::vector<Slot> holders;
        for (const auto& one : all) {
                if (is_live(all, how, one)) {
                        holders.push_back(one.slot);
                }
        }
        return remove(service, [&](const std::string& name, const Registration& one) {
                return std::ranges::find(holders, one.slot) != holders.end() && is_dead(name, one);
        });
}

Result<std::vector<Departure>> Registry::refresh_all() {
        return remove_all(std::bind_front(&Registry::is_dead, this));
}

Result<std::vector<Departure>> Registry::refresh_some(Sweep& sweep, std::chrono::steady_clock::time_point until) {
        constexpr unsigned kBetweenLooksAtTheClock = 16;
        if (sweep.done) {
                sweep = {.service = {}, .place = {}, .done = false};
        }
        std::vector<Departure> departures;
        unsigned asked = 0;
        bool time_left = true;
        auto seat = seats_.lower_bound(sweep.service);
        for (; seat != seats_.end() && time_left; seat++) {
                if (seat->first != sweep.service) {
                        sweep.service = seat->first;
                        sweep.place = {};
                }
                std::vector<Slot> dead;
                for (const auto& one : behind(sweep.place, seat->second.registrations)) {
                        if (is_dead(seat->first, one)) {
                                dead.push_back(one.slot);
                        }
                        sweep.place = {one.since_usec, one.held()};
                        if (++asked % kBetweenLooksAtTheClock == 0 && std::chrono::steady_clock::now() >= until) {
                                time_left = false;
                                break;
                        }
                }
                if (dead.empty()) {
                        continue;
                }
                auto gone = remove(seat->first, [&](const std::string&, const Registration& one) {
                        return std::ranges::find(dead, one.slot) != dead.end();
                });
                if (!gone) {
                        sweep.done = true;
                        return gone;
                }
                std::ranges::move(*gone, std::back_inserter(departures));
        }
        sweep.done = time_left;
        return departures;
}

Occupancy Registry::occupancy(const std::string& service, const Peer& peer, std::span<const Offer> offers) const {
        Occupancy occupancy;
        std::vector<Registration> others;  // without those that are offered again, or held for who offers now
        for (const auto& registration : registrations(service)) {
                const auto same = [&](const Offer& offer) { return offer.facts.cookie == registration.cookie; };
                if (std::ranges::none_of(offers, same) && !is_succeeded(registration, peer, offers, spread(service))) {
                        others.push_back(registration);
                }
        }
        std::vector<Slot> still_live;
        for (const auto protocol : kProtocols) {
                for (const auto family : kFamilies) {
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
        occupancy.live = static_cast<std::uint32_t>(spread(service).share ? others.size() : still_live.size());
        return occupancy;
}

Result<std::vector<Departure>> Registry::make_room(std::size_t slots) {
        std::vector<Departure> departures;
        while (dataplane_.free_slots() < slots) {
                const std::string* service = nullptr;
                Slot oldest = 0;
                std::size_t most = 0;
                for (const auto& [name, seat] : seats_) {
                        std::size_t draining = 0;
                        Slot last = 0;
                        for (const auto& one : seat.registrations) {
                                if (!one.held() && !is_live(seat.registrations, seat.spread, one)) {
                                        draining++;
                                        last = one.slot;
                                }
                        }
                        if (draining > most) {
                                most = draining;
                                oldest = last;
                                service = &name;
                        }
                }
                if (service == nullptr) {
                        break;
                }
                auto gone = remove(
                        *service, [oldest](const std::string&, const Registration& one) { return one.slot == oldest; });
                if (!gone) {
                        return gone;
                }
                std::ranges::move(*gone, std::back_inserter(departures));
        }
        return departures;
}

std::expected<std::vector<Handed>, Refusal> Registry::commit(const Service& service, const Peer& peer,
                                                             std::span<const Offer> offers) {
        const auto found = seats_.find(service.name);
        if (found == seats_.end()) {
                return std::unexpected(Refusal{ResultCode::kInternal, "service has no place in the kernel", {}});
        }
        Seat& seat = found->second;
        std::vector<Registration> added;
        const auto refuse = [&](const Error& error) {
                for (const auto& registration : added) {
                        dataplane_.remove(registration.slot);
                }
                const auto code = error.errnum == EBUSY ? ResultCode::kQuota : ResultCode::kInternal;
                return std::unexpected(Refusal{code, error.text(), {}});
        };
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
                const auto slot = dataplane_.install(offer.fd, to_record(seat.id, registration));
                if (!slot) {
                        return refuse(slot.error());
                }
                registration.slot = *slot;
                added.push_back(registration);
        }

        std::vector<Registration> after(added.rbegin(), added.rend());
        for (const auto& registration : seat.registrations) {
                if (std::ranges::find(added, registration.cookie, &Registration::cookie) == added.end() &&
                    !is_succeeded(registration, peer, offers, seat.spread)) {
                        after.push_back(registration);
                }
        }
        // Displaced sockets are kept for their owners to see, but never more of them than the quota.
        std::size_t draining = 0;
        std::erase_if(after, [&, whole = after](const Registration& registration) {
                return !is_live(whole, seat.spread, registration) && ++draining > service.max_sockets;
        });
        const std::vector<Registration> before = seat.registrations;
        if (const auto done = replace_registrations(seat, std::move(after)); !done) {
                return refuse(done.error());
        }

        std::vector<Handed> handed;
        for (const auto& registration : added) {
                Handed& one = handed.emplace_back();
                one.added = registration;
                for (const auto& old : before) {
                        const bool loses = is_live(before, seat.spread, old) && old.cookie != registration.cookie &&
                                           !is_live(seat.registrations, seat.spread, old) &&
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
        const auto seat = seats_.find(service);
        if (seat == seats_.end()) {
                return fail(ENOENT, fmt::format("service {} has no place in the kernel", service));
        }
        auto after = seat->second.registrations;
        const auto one = std::ranges::find(after, cookie, &Registration::cookie);
        if (one == after.end()) {
                return fail(ENOENT, fmt::format("service {} has no socket {:016x}", service, cookie));
        }
        change(*one);
        if (auto done = dataplane_.set_registrant(one->slot, to_record(seat->second.id, *one)); !done) {
                return done;
        }
        std::ranges::sort(after, is_before);
        return replace_registrations(seat->second, std::move(after));
}

Result<void> Registry::set_gone(const std::string& service, std::uint64_t cookie, std::int64_t gone_usec) {
        return rewrite(service, cookie, [&](Registration& one) { one.gone_usec = gone_usec; });
}

Result<void> Registry::give_back(const std::string& service, std::uint64_t cookie, const Peer& peer) {
        return rewrite(service, cookie, [&](Registration& one) {
                one.gone_usec = 0;
                one.registered_usec = monotonic_usec();
                one.registrant = peer;
        });
}

std::span<const Registration> Registry::registrations(const std::string& service) const {
        const auto seat = seats_.find(service);
        return seat == seats_.end() ? std::span<const Registration>{} : seat->second.registrations;
}

std::vector<std::string> Registry::services() const {
        std::vector<std::string> result;
        for (const auto& [service, seat] : seats_) {
                if (!seat.registrations.empty()) {
                        result.push_back(service);
                }
        }
        return result;
}

std::size_t Registry::size() const {
        std::size_t size = 0;
        for (const auto& [service, seat] : seats_) {
                size += seat.registrations.size();
        }
        return size;
}

Spread Registry::spread(const std::string& service) const {
        const auto seat = seats_.find(service);
        return seat == seats_.end() ? Spread{} : seat->second.spread;
}

BindingCounters Registry::counters(const Service& service, const Binding& binding, const Match& match) const {
        return dataplane_.binding_counters(identity_of(service, binding, match));
}

ServiceCounters Registry::counters(const std::string& service) const {
        const auto seat = seats_.find(service);
        return seat == seats_.end() ? ServiceCounters{} : dataplane_.counters(seat->second.id);
}

}  // namespace sockbroker
