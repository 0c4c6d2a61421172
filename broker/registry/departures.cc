// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that go: removed on request, found dead, or forgotten to make room for others.
#include <algorithm>
#include <chrono>
#include <functional>

#include "broker/registry/registry.h"

namespace sockbroker {

Result<std::vector<Departure>> Registry::remove(const std::string& service, const Gone& gone) {
        std::vector<Departure> departures;
        const auto state = services_.find(service);
        if (state == services_.end()) {
                return departures;
        }
        const auto& all = state->second.registrations;
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
        if (const auto before = replace_registrations(state->second, std::move(kept)); !before) {
                return std::unexpected(before.error());
        }
        return departures;
}

Result<std::vector<Departure>> Registry::remove_all(const Gone& gone) {
        std::vector<Departure> departures;
        for (const auto& [service, state] : services_) {
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
                sweep = {.service = {}, .cursor = {}, .done = false};
        }
        std::vector<Departure> departures;
        unsigned asked = 0;
        bool time_left = true;
        auto state = services_.lower_bound(sweep.service);
        for (; state != services_.end() && time_left; state++) {
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
                auto gone = remove(state->first, [&](const std::string&, const Registration& one) {
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

Result<std::vector<Departure>> Registry::make_room(std::size_t slots) {
        std::vector<Departure> departures;
        while (dataplane_.free_slots() < slots) {
                const std::string* service = nullptr;
                Slot oldest = 0;
                std::size_t most = 0;
                for (const auto& [name, state] : services_) {
                        std::size_t draining = 0;
                        Slot last = 0;
                        for (const auto& one : state.registrations) {
                                if (!one.held() && !is_live(state.registrations, state.distribution, one)) {
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

}  // namespace sockbroker
