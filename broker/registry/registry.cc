// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/registry/registry.h"

#include <algorithm>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/policy/conflicts.h"

namespace sockbroker {

namespace {

constexpr std::array kProtocols = {Protocol::kTcp, Protocol::kUdp};
constexpr std::array kFamilies = {Family::kIpv4, Family::kIpv6};

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
                               .user_name = record.user_name,
                               .group_name = record.group_name},
                .registered_usec = record.registered_usec,
                .gone_usec = record.gone_usec,
                .hold_until_usec = record.hold_until_usec,
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

// Which slots they have, as flags: a service may hand over thousands of times a second.
class SlotSet {
public:
        explicit SlotSet(std::span<const Registration> registrations) {
                Slot last = 0;
                for (const auto& one : registrations) {
                        last = std::max(last, one.slot);
                }
                flags_.resize(last + 1);
                for (const auto& one : registrations) {
                        flags_[one.slot] = true;
                }
        }

        [[nodiscard]] bool contains(Slot slot) const { return slot < flags_.size() && flags_[slot]; }

private:
        std::vector<bool> flags_;
};

}  // namespace

void Registry::take_up() {
        services_.clear();
        bound_.clear();
        const auto& service_names = dataplane_.service_names();
        for (ServiceId id = 1; id < service_names.size(); id++) {
                if (!service_names[id].empty()) {
                        services_[service_names[id]].id = id;
                }
        }
        for (const auto& [slot, record] : dataplane_.registrants()) {
                last_since_usec_ = std::max(last_since_usec_, record.since_usec);
                const bool known = record.service < service_names.size() && !service_names[record.service].empty();
                if (known) {
                        services_[service_names[record.service]].registrations.push_back(from_record(slot, record));
                } else {
                        dataplane_.remove(slot);
                }
        }
        for (auto& [service, state] : services_) {
                auto& all = state.registrations;
                std::ranges::sort(all, is_before);
                const Targets targets = dataplane_.targets(state.id);
                state.distribution = {targets.share, targets.reuse_port, targets.stay, targets.reply};
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
                for (const auto& registration : all) {
                        note_bound(state.id, registration);
                }
                // The same targets as a rule, but of a broker that died while it noted that a service was gone. Where
                // that fails its sockets stay in the order that the kernel has.
                (void)replace_registrations(state, all, state.distribution);
        }
}

Result<Removal> Registry::set_policy(const Policy& policy, const Interfaces& interfaces) {
        constexpr std::size_t kAll = SIZE_MAX;
        Change change;
        // Whatever ends this, an exception too, leaves no number behind.
        struct Undo {
                Registry& registry;
                const Change& change;

                Undo(Registry& r, const Change& c) : registry(r), change(c) {}
                Undo(const Undo&) = delete;
                Undo& operator=(const Undo&) = delete;
                ~Undo() {
                        if (!change.in_force) {
                                registry.abandon_change(change);
                        }
                }
        } undo(*this, change);
        if (const auto begun = begin_change(change, policy, kAll); !begun) {
                return std::unexpected(begun.error());
        }
        if (const auto done = install(change, policy, interfaces); !done) {
                return std::unexpected(done.error());
        }
        Removal removal;
        (void)finish_change(change, policy, kAll, removal);
        return removal;
}

Result<bool> Registry::begin_change(Change& change, const Policy& policy, std::size_t most) {
        for (; change.ids.size() < policy.services.size(); most--) {
                if (most == 0) {
                        return false;
                }
                const std::string& name = policy.services[change.ids.size()].name;
                const auto at = services_.lower_bound(name);
                if (at != services_.end() && at->first == name) {
                        change.ids.emplace_hint(change.ids.end(), name, at->second.id);
                        continue;
                }
                change.fresh.push_back(0);
                const auto id = dataplane_.add_service(name);
                if (!id) {
                        return std::unexpected(id.error());
                }
                change.fresh.back() = *id;
                // Now, since after the switch there may be no memory for it.
                services_.emplace_hint(at, name, ServiceState{.id = *id});
                change.ids.emplace_hint(change.ids.end(), name, *id);
        }
        auto counters = dataplane_.assign_counters(counted_bindings(policy));
        if (!counters) {
                return std::unexpected(counters.error());
        }
        change.counters = std::move(*counters);
        return true;
}

Result<void> Registry::install(const Change& change, const Policy& policy, const Interfaces& interfaces) const {
        return dataplane_.set_rules(rules_of(
                policy, [&](const std::string& name) { return change.ids.at(name); }, interfaces, change.counters));
}

// What memory does not suffice for goes with the next change that comes into force, since no policy has it.
void Registry::abandon_change(const Change& change) noexcept {
        for (const auto id : change.fresh) {
                (void)succeeds([&] {
                        const auto state = services_.find(dataplane_.service_names()[id]);
                        dataplane_.remove_service(id);
                        if (state != services_.end()) {
                                services_.erase(state);
                        }
                });
        }
        if (counters_) {
                (void)succeeds([&] { dataplane_.keep_counters(*counters_); });
        }
}

bool Registry::finish_change(Change& change, const Policy& policy, std::size_t most, Removal& removal) noexcept {
        auto state = services_.begin();
        if (change.in_force) {
                state = services_.lower_bound(change.next);
        } else {
                change.in_force = true;
                counters_ = std::move(change.counters);
                if (!succeeds([&] { dataplane_.keep_counters(*counters_); })) {
                        removal.blame(no_memory());
                }
                while (state != services_.end()) {
                        const auto one = state++;
                        if (!one->second.registrations.empty()) {
                                follow_policy(one, policy, removal);
                        }
                }
                state = services_.begin();
        }
        for (; most > 0 && state != services_.end(); most--) {
                follow_policy(state++, policy, removal);
        }
        if (state == services_.end()) {
                return true;
        }
        change.next = state->first;
        return false;
}

void Registry::follow_policy(States::iterator state, const Policy& policy, Removal& removal) noexcept {
        const Service* service = policy.find(state->first);
        Result<void> done;
        const bool finished = succeeds([&] {
                if (service == nullptr) {
                        remove_service(state->first, state->second, removal.departures);
                } else {
                        done = set_distribution(
                                state->second,
                                {service->handover == Handover::kShare, service->reuse_port,
                                 service->udp_flows == UdpFlows::kStay, service->udp_reply == UdpReply::kOriginal});
                }
        });
        if (!finished || !done) {
                removal.blame(finished ? std::move(done.error()) : no_memory());
        } else if (service == nullptr) {
                services_.erase(state);
        }
}

Result<void> Registry::set_distribution(ServiceState& state, Distribution distribution) {
        return state.distribution == distribution ? Result<void>()
                                                  : replace_registrations(state, state.registrations, distribution);
}

Result<void> Registry::replace_registrations(ServiceState& state, std::vector<Registration> kept,
                                             Distribution distribution) {
        const SlotSet slots_before(state.registrations);
        const SlotSet slots_after(kept);
        const Targets targets = targets_of(kept, distribution);
        if (targets != dataplane_.targets(state.id)) {
                if (auto done = dataplane_.set_targets(state.id, targets); !done) {
                        return done;
                }
        }
        // Nothing from here on fails.
        for (const auto& registration : kept) {
                if (!slots_before.contains(registration.slot)) {
                        note_bound(state.id, registration);
                }
        }
        for (const auto& registration : state.registrations) {
                if (!slots_after.contains(registration.slot)) {
                        dataplane_.remove(registration.slot);
                        forget_bound(state.id, registration);
                }
        }
        state.registrations = std::move(kept);
        state.distribution = distribution;
        return {};
}

void Registry::note_bound(ServiceId service, const Registration& registration) noexcept {
        try {
                bound_.emplace(BoundTo{registration.protocol, registration.bound}, Bound{service, registration.cookie});
        } catch (const std::bad_alloc&) {
                return;
        }
}

void Registry::forget_bound(ServiceId service, const Registration& registration) {
        const auto [first, last] = bound_.equal_range({registration.protocol, registration.bound});
        const auto found = std::find_if(first, last, [&](const auto& entry) {
                return entry.second == Bound{service, registration.cookie};
        });
        if (found != last) {
                bound_.erase(found);
        }
}

std::vector<std::string> Registry::bound_alike(const std::string& service, const SocketFacts& socket) const {
        std::vector<std::string> others;
        const auto [first, last] = bound_.equal_range({socket.protocol, socket.bound});
        for (auto at = first; at != last; at++) {
                const auto& name = dataplane_.service_names()[at->second.service];
                if (at->second.cookie != socket.cookie && name != service &&
                    std::ranges::find(others, name) == others.end()) {
                        others.push_back(name);
                }
        }
        return others;
}

std::span<const Registration> Registry::registrations(const std::string& service) const {
        const auto state = services_.find(service);
        return state == services_.end() ? std::span<const Registration>{} : state->second.registrations;
}

bool Registry::has(const std::string& service, std::uint64_t cookie) const {
        const auto all = registrations(service);
        return std::ranges::find(all, cookie, &Registration::cookie) != all.end();
}

std::vector<std::string> Registry::services() const {
        std::vector<std::string> result;
        for (const auto& [service, state] : services_) {
                if (!state.registrations.empty()) {
                        result.push_back(service);
                }
        }
        return result;
}

std::size_t Registry::size() const {
        std::size_t size = 0;
        for (const auto& [service, state] : services_) {
                size += state.registrations.size();
        }
        return size;
}

Distribution Registry::distribution(const std::string& service) const {
        const auto state = services_.find(service);
        return state == services_.end() ? Distribution{} : state->second.distribution;
}

BindingCounters Registry::counters(const Service& service, const Binding& binding, const ClientFilter& client) const {
        return dataplane_.binding_counters(identity_of(service, binding, client));
}

ServiceCounters Registry::counters(const std::string& service) const {
        const auto state = services_.find(service);
        return state == services_.end() ? ServiceCounters{} : dataplane_.counters(state->second.id);
}

}  // namespace sockbroker
