// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/departures.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/entries.h"
#include "broker/daemon/wall_clock.h"

namespace sockbroker {

void Departures::gone(const Result<std::vector<Departure>>& departures) {
        tell(departures, Action::kGone, "its last descriptor was closed, or its owner has shut it down");
}

void Departures::tell(const Result<std::vector<Departure>>& departures, Action action, const std::string& why) {
        if (!departures) {
                return audit_.note(3, "cannot take sockets away: " + departures.error().text());
        }
        gone_ += action == Action::kGone ? departures->size() : 0;
        for (const auto& [service, registration] : *departures) {
                Entry entry = entry_of(action, service, registration);
                entry.message =
                        fmt::format("{} of {} is not registered any more: {}", socket_name(registration), service, why);
                entries_.write(std::move(entry));
                remember(service, why);
                held_.drop_departed(service);
                routes_.look_at(service);
        }
}

void Departures::remember(const std::string& service, const std::string& why) {
        if (last_.size() >= kRemembered && !last_.contains(service)) {
                last_.erase(std::ranges::min_element(last_, {}, [](const auto& entry) { return entry.second.usec; }));
        }
        last_[service] = {wall_usec(), why};
}

const Departures::Last* Departures::last_of(const std::string& service) const {
        const auto found = last_.find(service);
        return found == last_.end() ? nullptr : &found->second;
}

}  // namespace sockbroker
