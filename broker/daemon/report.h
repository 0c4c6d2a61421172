// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker says of itself: status, list, bindings, version, and what happens to a packet. Changes nothing; but
// what it says of sockets it asks the kernel first, where that does not take long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/attachment.h"
#include "broker/daemon/departures.h"
#include "broker/daemon/flows.h"
#include "broker/daemon/held_sockets.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/refusals.h"
#include "broker/daemon/reloads.h"
#include "broker/daemon/routes.h"
#include "broker/dataplane/dataplane.h"
#include "broker/names/names.h"
#include "broker/protocol/request.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Report {
public:
        Report(const Dataplane& dataplane, const PolicyInForce& policy, const Reloads& reloads, Registry& registry,
               Departures& departures, const HeldSockets& held, const Routes& routes, const Names& names,
               const Refusals& refusals, const Audit& audit, Flows& flows, Attachment& attachment,
               const Capacity& allowed, std::uint64_t netns_cookie, std::string mistakes);

        [[nodiscard]] Answer status();
        [[nodiscard]] Answer list();
        [[nodiscard]] Answer bindings(bool counted_only) const;  // or of services with Accounting=binding
        [[nodiscard]] Answer version() const;
        [[nodiscard]] Answer explain(const Request& request);

private:
        // Where there are so many sockets at most each is asked. Beyond, what the last round of Broker::probe_some()
        // has found is told: every client may ask, as often as it likes.
        static constexpr std::size_t kAskAll = 256;
        void probe();
        // How a service that has no socket gets one.
        [[nodiscard]] std::vector<std::string> how_to_serve_again(const Service& service) const;

        const Dataplane& dataplane_;
        const PolicyInForce& policy_;
        const Reloads& reloads_;
        Registry& registry_;
        Departures& departures_;
        const HeldSockets& held_;
        const Routes& routes_;
        const Names& names_;
        const Refusals& refusals_;
        const Audit& audit_;
        Flows& flows_;
        Attachment& attachment_;
        const Capacity allowed_;  // by the limits of sockbrokerd.conf, as far as the maps have room
        const std::uint64_t netns_cookie_;
        const std::string mistakes_;
        const std::int64_t started_usec_;
};

}  // namespace sockbroker
