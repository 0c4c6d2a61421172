// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/announce_units.h"

#include <utility>

namespace sockbroker {

bool is_active(const UnitState& state) {
        return state.active == "active" || state.active == "reloading" || state.active == "refreshing";
}

AnnounceUnits::AnnounceUnits(sd_event* event, std::function<void()> changed)
        : changed_(std::move(changed)),
          watch_(event, {.changed =
                                 [this](const std::string& unit) {
                                         if (const auto found = units_.find(unit); found != units_.end()) {
                                                 found->second.stale = true;
                                                 ask(unit);
                                         }
                                 },
                         .settled =
                                 [this] {
                                         for (auto& [unit, known] : units_) {
                                                 known.stale = true;
                                         }
                                         changed_();
                                 }}) {}

void AnnounceUnits::ask(const std::string& unit) {
        auto& known = units_[unit];
        if (known.asked || !watch_.connected()) {
                return;
        }
        known.asked = true;
        known.stale = false;
        watch_.ask(unit, [this, unit](const UnitState* state) {
                const auto found = units_.find(unit);
                if (found == units_.end()) {
                        return;
                }
                found->second.asked = false;
                if (state == nullptr) {
                        found->second.stale = true;  // no answer is no verdict, it is asked again by whoever looks next
                        return;
                }
                found->second.state = *state;
                if (found->second.stale) {  // it has changed since
                        ask(unit);
                }
                changed_();
        });
}

const AnnounceUnits::Known& AnnounceUnits::look_up(const std::string& unit) {
        auto& known = units_[unit];
        known.wanted = true;
        if (known.stale) {
                ask(unit);
        }
        return known;
}

std::optional<bool> AnnounceUnits::any_triggered(const std::string& socket) {
        const auto& known = look_up(socket);
        if (!known.state) {
                return std::nullopt;
        }
        std::optional<bool> result = false;
        for (const auto& service : std::vector(known.state->triggers)) {
                const auto& triggered = look_up(service);
                if (!triggered.state) {
                        result = std::nullopt;
                } else if (is_active(*triggered.state)) {
                        return true;
                }
        }
        return result;
}

std::optional<bool> AnnounceUnits::is_up(const std::string& unit) {
        if (unit.empty()) {
                return true;
        }
        const auto& known = look_up(unit);
        if (!known.state) {
                return watch_.connected() || watch_.pending() ? std::optional<bool>() : true;
        }
        if (unit.ends_with(".socket")) {
                return any_triggered(unit);
        }
        if (is_active(*known.state)) {
                return true;
        }
        bool all_known = true;
        for (const auto& socket : std::vector(known.state->triggered_by)) {
                const auto triggered = any_triggered(socket);
                if (triggered == std::optional(true)) {
                        return true;
                }
                all_known = all_known && triggered.has_value();
        }
        return all_known ? std::optional(false) : std::nullopt;
}

void AnnounceUnits::forget_others() {
        std::erase_if(units_, [](const auto& entry) { return !entry.second.wanted && !entry.second.asked; });
        for (auto& [unit, known] : units_) {
                known.wanted = false;
        }
}

}  // namespace sockbroker
