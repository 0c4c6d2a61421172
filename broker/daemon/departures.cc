// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/departures.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/base/wall_clock.h"
#include "broker/daemon/entries.h"

namespace sockbroker {

namespace {

constexpr std::string_view kWhyGone = "its last descriptor was closed, or its owner has shut it down";

}  // namespace

void Departures::gone(const Removal& removal) {
        tell(removal, Action::kGone, kWhyGone);
}

void Departures::gone(const Result<std::vector<Departure>>& departures) {
        tell(departures, Action::kGone, kWhyGone);
}

void Departures::tell(const Removal& removal, Action action, std::string_view why) {
        tell_all(removal.departures, action, why);
        if (removal.error) {
                blame(*removal.error);
        }
}

void Departures::tell(const Result<std::vector<Departure>>& departures, Action action, std::string_view why) {
        if (!departures) {
                return blame(departures.error());
        }
        tell_all(*departures, action, why);
}

void Departures::blame(const Error& error) {
        audit_.note(3, "cannot take sockets away: " + error.text());
}

// Where memory does not suffice for one of these steps, all others are taken.
void Departures::tell_all(const std::vector<Departure>& departures, Action action, std::string_view why) {
        gone_ += action == Action::kGone ? departures.size() : 0;
        for (const auto& departure : departures) {
                const auto& service = departure.service;
                const auto& registration = departure.registration;
                (void)guarded([&] {
                        Entry entry = entry_of(action, service, registration);
                        entry.message = fmt::format("{} of {} is not registered any more: {}",
                                                    socket_name(registration), service, why);
                        entries_.write(std::move(entry));
                });
                (void)guarded([&] { remember(service, why); });
                (void)guarded([&] { held_.drop_departed(service); });
                (void)guarded([&] { routes_.look_at(service); });
        }
}

void Departures::remember(const std::string& service, std::string_view why) {
        if (last_.size() >= kRemembered && !last_.contains(service)) {
                last_.erase(std::ranges::min_element(last_, {}, [](const auto& entry) { return entry.second.usec; }));
        }
        last_[service] = {wall_usec(), std::string(why)};
}

const Departures::Last* Departures::last_of(const std::string& service) const {
        const auto found = last_.find(service);
        return found == last_.end() ? nullptr : &found->second;
}

}  // namespace sockbroker
