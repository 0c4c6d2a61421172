// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is different in another policy: its bindings, and what else its services say. Pure; for a million bindings each
// it takes about as long as to check one of them for conflicts.
#pragma once

#include <string>
#include <vector>

#include "broker/policy/policy.h"

namespace sockbroker {

// One binding of a service, with one of its sources and interfaces: indexes into the policy, small, for there may be
// millions.
struct BindingReference {
        std::uint32_t service = 0;
        std::uint32_t binding = 0;
        std::uint32_t client = 0;
};

struct BindingChange {
        enum class Kind : std::uint8_t { kRemoved, kAdded, kMoved };  // in this order, as diff(1) has it
        Kind kind = Kind::kAdded;
        BindingReference before;  // of removed and moved ones
        BindingReference after;   // of added and moved ones
        // Ports alone, which are two bindings: this stands for that of IPv6 too, which has changed in the same way.
        bool both_families = false;
};

struct SettingChange {
        std::string service;
        std::vector<std::string> keys;  // "HoldSec"
};

struct PolicyChanges {
        std::vector<BindingChange> bindings;  // in the order of the services that have them, or had them
        std::vector<SettingChange> settings;  // of services that are in both

        [[nodiscard]] bool any() const { return !bindings.empty() || !settings.empty(); }
};

[[nodiscard]] PolicyChanges changes_between(const Policy& before, const Policy& after);

}  // namespace sockbroker
