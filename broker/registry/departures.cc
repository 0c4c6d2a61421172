// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that go: removed on request, found dead, or forgotten to make room for others.
#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <ranges>
#include <span>
#include <utility>

#include "broker/base/event.h"
#include "broker/registry/registry.h"

namespace sockbroker {

namespace {

// Room for so many more, at the usual price.
void reserve_more(std::vector<Departure>& departures, std::size_t more) {
        if (departures.capacity() - departures.size() < more) {
                departures.reserve(std::max(departures.size() + more, departures.capacity() * 2));
        }
}

}  // namespace

Result<void> Registry::remove_of(const std::string& service, ServiceState& state, const Gone& gone,
                                 std::vector<Departure>& departures) {
        const auto& all = state.registrations;
        std::vector<Departure> going;
        std::vector<bool> stays(all.size(), true);
        for (std::size_t i = 0; i < all.size(); i++) {
                if (gone(service, all[i])) {
                        going.push_back({service, all[i]});
                        stays[i] = false;
                }
        }
        if (going.empty()) {
                return {};  // the rule, where sockets are asked whether they live: nothing is copied for it
        }
        std::vector<Registration> kept;
        kept.reserve(all.size() - going.size());
        for (std::size_t i = 0; i < all.size(); i++) {
                if (stays[i]) {
                        kept.push_back(all[i]);
                }
        }
        reserve_more(departures, going.size());  // what has gone must not get lost
        if (auto done = replace_registrations(state, std::move(kept), state.distribution); !done) {
                return done;
        }
        std::ranges::move(going, std::back_inserter(departures));
        return {};
}

void Registry::remove_of(const std::string& service, ServiceState& state, const Gone& gone, Removal& removal) noexcept {
        Result<void> done;
        if (!succeeds([&] { done = remove_of(service, state, gone, removal.departures); })) {
                done = std::unexpected(no_memory());
        }
        if (!done) {
                removal.blame(std::move(done.error()));
        }
}

void Registry::remove_service(const std::string& service, ServiceState& state, std::vector<Departure>& departures) {
        std::vector<Departure> going;
        going.reserve(state.registrations.size());
        for (const auto& registration : state.registrations) {
                going.push_back({service, registration});
        }
        reserve_more(departures, going.size());
        dataplane_.remove_service(state.id);
        // Nothing from here on fails.
        for (const auto& registration : state.registrations) {
                dataplane_.remove(registration.slot);
                forget_bound(state.id, registration);
        }
        std::ranges::move(going, std::back_inserter(departures));
}

Result<std::vector<Departure>> Registry::remove(const std::string& service, const Gone& gone) {
        std::vector<Departure> departures;
        const auto state = services_.find(service);
        if (state == services_.end()) {
                return departures;
        }
        if (auto done = remove_of(service, state->second, gone, departures); !done) {
                return std::unexpected(std::move(done.error()));
        }
        return departures;
}

Removal Registry::remove_all(const Gone& gone) {
        Removal removal;
        for (auto& [service, state] : services_) {
                remove_of(service, state, gone, removal);
        }
        return removal;
}

bool Registry::is_dead(const std::string&, const Registration& registration) const {
        const auto family = registration.serves.ipv4 ? Family::kIpv4 : Family::kIpv6;
        return dataplane_.cookie(registration.slot) != registration.cookie ||
               !dataplane_.takes_lookups(registration.slot, registration.protocol, family);
}

Result<std::vector<Departure>> Registry::refresh(const std::string& service) {
        return remove(service, std::bind_front(&Registry::is_dead, this));
}

Result<std::vector<Departure>> Registry::refresh_holders(const std::string& service) {
        const auto all = registrations(service);
        const auto how = distribution(service);
        if (how.share) {
                return std::vector<Departure>{};  // nobody is displaced
        }
        const Serving serving(all, how);
        std::vector<Slot> holders;
        for (const auto& one : all) {
                if (serving.is_live(one)) {
                        holders.push_back(one.slot);
                }
        }
        return remove(service, [&](const std::string& name, const Registration& one) {
                return std::ranges::find(holders, one.slot) != holders.end() && is_dead(name, one);
        });
}

Removal Registry::refresh_all() {
        return remove_all(std::bind_front(&Registry::is_dead, this));
}

Removal Registry::refresh_some(Sweep& sweep, std::chrono::steady_clock::time_point until) {
        if (sweep.done) {
                sweep = {.service = {}, .cursor = {}, .done = false};
        }
        Removal removal;
        bool time_left = true;
        if (!succeeds([&] { time_left = sweep_some(sweep, until, removal); })) {
                removal.blame(no_memory());
        }
        sweep.done = time_left || removal.error;
        return removal;
}

// False: the time is up.
bool Registry::sweep_some(Sweep& sweep, std::chrono::steady_clock::time_point until, Removal& removal) {
        constexpr unsigned kBetweenLooksAtTheClock = 16;
        unsigned asked = 0;
        bool time_left = true;
        auto state = services_.lower_bound(sweep.service);
        for (; state != services_.end() && time_left && !removal.error; state++) {
                if (state->first != sweep.service) {
                        sweep.service = state->first;
                        sweep.cursor = {};
                }
                std::vector<Slot> dead;
                for (const auto& one : behind(sweep.cursor, state->second.registrations)) {
                        if (is_dead(state->first, one)) {
                                dead.push_back(one.slot);
                        }
                        sweep.cursor = {one.since_usec, one.held()};
                        if (++asked % kBetweenLooksAtTheClock == 0 && std::chrono::steady_clock::now() >= until) {
                                time_left = false;
                                break;
                        }
                }
                if (dead.empty()) {
                        continue;
                }
                const auto gone = [&](const std::string&, const Registration& one) {
                        return std::ranges::find(dead, one.slot) != dead.end();
                };
                remove_of(state->first, state->second, gone, removal);
        }
        return time_left;
}

Removal Registry::forget_displaced(const std::string& service, std::size_t most) {
        Removal removal;
        const auto found = services_.find(service);
        if (found == services_.end()) {
                return removal;
        }
        ServiceState& state = found->second;
        const Serving serving(state.registrations, state.distribution);
        const auto is_displaced = [&](const Registration& one) { return !one.held() && !serving.is_live(one); };
        const auto displaced = static_cast<std::size_t>(std::ranges::count_if(state.registrations, is_displaced));
        if (displaced <= most) {
                return removal;
        }
        std::vector<Slot> oldest;
        for (const auto& one : state.registrations | std::views::filter(is_displaced) | std::views::drop(most)) {
                oldest.push_back(one.slot);
        }
        remove_of(
                service, state,
                [&](const std::string&, const Registration& one) {
                        return std::ranges::find(oldest, one.slot) != oldest.end();
                },
                removal);
        return removal;
}

Removal Registry::make_room(std::size_t slots) {
        Removal removal;
        const std::size_t free = dataplane_.free_slots();
        if (free >= slots) {
                return removal;
        }
        struct Displaced {
                States::iterator service;
                std::vector<Slot> slots;  // the oldest is the last
                std::size_t going = 0;    // so many of the last
        };
        std::vector<Displaced> all;
        for (auto at = services_.begin(); at != services_.end(); ++at) {
                const ServiceState& state = at->second;
                const Serving serving(state.registrations, state.distribution);
                Displaced displaced{.service = at, .slots = {}};
                for (const auto& one : state.registrations) {
                        if (!one.held() && !serving.is_live(one)) {
                                displaced.slots.push_back(one.slot);
                        }
                }
                if (!displaced.slots.empty()) {
                        all.push_back(std::move(displaced));
                }
        }
        // A heap of those that have some left, and behind it those that have none; all by one look at each.
        const auto left = [](const Displaced& one) { return one.slots.size() - one.going; };
        const auto fewer = [&](const Displaced& one, const Displaced& other) { return left(one) < left(other); };
        std::ranges::make_heap(all, fewer);
        auto end = all.end();
        for (std::size_t wanted = slots - free; wanted > 0 && end != all.begin(); wanted--) {
                std::ranges::pop_heap(all.begin(), end, fewer);
                Displaced& most = *std::prev(end);
                most.going++;
                if (left(most) == 0) {
                        --end;
                } else {
                        std::ranges::push_heap(all.begin(), end, fewer);
                }
        }
        for (const auto& one : all) {
                const auto going = std::span(one.slots).last(one.going);
                if (!going.empty() && !removal.error) {
                        remove_of(
                                one.service->first, one.service->second,
                                [&](const std::string&, const Registration& registration) {
                                        return std::ranges::find(going, registration.slot) != going.end();
                                },
                                removal);
                }
        }
        return removal;
}

}  // namespace sockbroker
