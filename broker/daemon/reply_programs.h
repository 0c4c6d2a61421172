// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpReply=original: when units get the programs that set the source of their answers, and what is told of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "broker/audit/audit.h"
#include "broker/base/result.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/refusals.h"
#include "broker/daemon/service_entries.h"
#include "broker/policy/decide.h"
#include "broker/registry/registry.h"
#include "broker/socket/facts.h"
#include "broker/udp/replies.h"

namespace sockbroker {

class ReplyPrograms {
public:
        ReplyPrograms(UnitPrograms& programs, const PolicyInForce& policy, const Registry& registry, Refusals& refusals,
                      ServiceEntries& entries, Audit& audit)
                : replies_(programs),
                  policy_(policy),
                  registry_(registry),
                  refusals_(refusals),
                  entries_(entries),
                  audit_(audit) {}

        // For sockets that are about to be registered, where the service asks for it.
        [[nodiscard]] Result<GrantedPorts> prepare(const Service& service, const Peer& peer,
                                                   std::span<const SocketFacts> sockets);
        // What is wrong with that, which the journal has then too.
        [[nodiscard]] std::optional<std::string> tell(const Service& service, const Peer& peer,
                                                      const Result<GrantedPorts>& prepared);
        // VERB=prepare: before the unit has a socket.
        [[nodiscard]] Answer prepare(const Admission& admission, const Peer& peer);

        // After a policy was taken, or names of accounts are known; see UdpReplies.
        void follow_policy(const Accounts& accounts);
        void sweep_if_due(std::uint64_t now_usec) { replies_.sweep_if_due(now_usec); }

private:
        UdpReplies replies_;
        const PolicyInForce& policy_;
        const Registry& registry_;
        Refusals& refusals_;
        ServiceEntries& entries_;
        Audit& audit_;
};

}  // namespace sockbroker
