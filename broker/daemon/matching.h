// SPDX-License-Identifier: LGPL-2.1-or-later
//
// VERB=match: which service would take a socket, for programs that bind as they always did. Changes nothing. Whether a
// service admits may be a question to the host, so candidates are asked one after another, and all of one rank.
#pragma once

#include <memory>

#include "broker/daemon/admissions.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/departures.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/refusals.h"
#include "broker/names/names.h"
#include "broker/protocol/request.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Matching {
public:
        Matching(const PolicyInForce& policy, Admissions& admissions, const Names& names, Registry& registry,
                 Departures& departures, Refusals& refusals)
                : policy_(policy),
                  admissions_(admissions),
                  names_(names),
                  registry_(registry),
                  departures_(departures),
                  refusals_(refusals) {}

        void match(const WantedBind& bind, const Peer& peer, const Reply& reply);

private:
        struct Match;
        void next(const std::shared_ptr<Match>& match);
        [[nodiscard]] Answer end(const Match& match);

        const PolicyInForce& policy_;
        Admissions& admissions_;
        const Names& names_;
        Registry& registry_;
        Departures& departures_;
        Refusals& refusals_;
};

}  // namespace sockbroker
