// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that are registered, and those that their owners take back. Whoever asks is admitted already; what is judged
// here is the sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker/daemon/answer.h"
#include "broker/daemon/departures.h"
#include "broker/daemon/family_warnings.h"
#include "broker/daemon/held_sockets.h"
#include "broker/daemon/incoming.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/rate_limit.h"
#include "broker/daemon/refusals.h"
#include "broker/daemon/reply_programs.h"
#include "broker/daemon/routes.h"
#include "broker/daemon/service_entries.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Registrar {
public:
        // `rate`: of each service. `netns`: its name, for people; may be empty.
        Registrar(const PolicyInForce& policy, Registry& registry, Departures& departures, ReplyPrograms& replies,
                  HeldSockets& held, Routes& routes, Refusals& refusals, ServiceEntries& entries, RateSettings rate,
                  std::string netns, std::uint64_t netns_cookie);

        // What a request says beside its sockets.
        struct Wish {
                // Another process is named, which may bind its socket of the other family next. So the answer does not
                // warn of a family without one.
                bool on_behalf = false;
                bool inherit = false;               // what the service has already keeps its place
                std::optional<Family> family = {};  // the one that dual-stack sockets serve
        };
        [[nodiscard]] Answer store(const Admission& admission, const Incoming& message, const Peer& peer,
                                   const Wish& wish);
        // Those of the peer, or `any`.
        [[nodiscard]] Answer remove(const std::string& service, bool any, const Peer& peer);
        // To the journal. To be called every second or so.
        void tell_of_families() { families_.tell_due(); }

private:
        // Slots for so many more, as far as there are some that nobody serves with.
        void make_room(std::size_t slots);
        void keep_places(const std::string& service, std::vector<Offer>& offers) const;
        void forget_displaced(const Service& service);
        void tell_handed(const Admission& admission, const std::vector<CommitResult>& handed);
        // What is probably not as it was meant, of a registration that was taken; the journal has it too.
        [[nodiscard]] std::vector<std::string> warn(const Admission& admission, const Peer& peer,
                                                    const std::vector<SocketFacts>& sockets, bool on_behalf);

        const PolicyInForce& policy_;
        Registry& registry_;
        Departures& departures_;
        ReplyPrograms& replies_;
        HeldSockets& held_;
        Routes& routes_;
        Refusals& refusals_;
        ServiceEntries& entries_;
        FamilyWarnings families_;
        Registry::Sweep sweep_;                 // of make_room()
        std::int64_t no_sweep_until_usec_ = 0;  // the last one was in vain
        RateLimit<std::string> rates_;
        const std::string netns_;
        const std::uint64_t netns_cookie_;
};

}  // namespace sockbroker
