// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Services that have bindings of two families and a socket of one. Most servers register a socket of each, one after
// the other: the answer to the first may say that the other is missing, the journal says it once it has stayed so.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/service_entries.h"
#include "broker/policy/decide.h"
#include "broker/registry/registry.h"
#include "broker/socket/facts.h"

namespace sockbroker {

class FamilyWarnings {
public:
        FamilyWarnings(const PolicyInForce& policy, const Registry& registry, ServiceEntries& entries)
                : policy_(policy), registry_(registry), entries_(entries) {}

        // What is missing now that these sockets of the service are registered.
        [[nodiscard]] std::vector<std::string> look_at(const Admission& admission,
                                                       std::span<const SocketFacts> sockets);
        // To the journal: what is missing still. To be called every second or so.
        void tell_due();

private:
        struct Missing {
                std::int64_t due_usec = 0;
                std::string rule;  // that admitted the socket of the other family
        };

        void tell(const std::string& service, Protocol protocol, const std::string& rule);

        const PolicyInForce& policy_;
        const Registry& registry_;
        ServiceEntries& entries_;
        std::map<std::pair<std::string, Protocol>, Missing> missing_;  // not told yet
};

}  // namespace sockbroker
