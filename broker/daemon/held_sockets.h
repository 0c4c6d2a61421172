// SPDX-License-Identifier: LGPL-2.1-or-later
//
// HoldSec=: what the broker does when a service goes, comes back, or does not. Clocks and descriptors are the matter of
// Holds, places in the kernel the registry's; here they are kept in step, and the journal has it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/incoming.h"
#include "broker/daemon/places.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/refusals.h"
#include "broker/daemon/service_entries.h"
#include "broker/holds/holds.h"
#include "broker/protocol/request.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class HeldSockets {
public:
        // `has_store`: PID 1 keeps descriptors for this process.
        HeldSockets(sd_event* event, hands::Crew& crew, bool has_store, Registry& registry, const PolicyInForce& policy,
                    Refusals& refusals, ServiceEntries& entries, Audit& audit);

        // Once, with the policy in force: those among `stored` that still count are held.
        void take_up(std::vector<StoredFd> stored);
        // Closes what PID 1 keeps for the broker and the broker does not know.
        void drop_strangers(std::vector<StoredFd> strangers);

        // Of the crew: the holder of the service was left behind, or died; PID 1 has no descriptor of that name any
        // more.
        void on_lost(const std::string& service, const std::vector<std::uint64_t>& cookies);
        void on_forgotten(const std::string& name) { holds_.forgotten(name); }

        // For a message whose sockets the holder of the service is to take.
        [[nodiscard]] std::shared_ptr<InHolder> in_holder(std::string service) const {
                return holds_.in_holder(std::move(service));
        }
        // Sockets of that message were registered.
        void hold(const Service& service, const std::vector<CommitResult>& handed, const Incoming& message);
        // Some of the service are not registered any more, for whatever reason.
        void drop_departed(const std::string& service);
        // Another policy is in force.
        void follow_policy();

        // VERB=hold
        [[nodiscard]] Answer hold_over_stop(const Request& request, const Peer& peer);
        // VERB=retrieve, in two steps: calls `then` when it is certain of each socket of the service whether its
        // registrant is there; whoever is admitted then has those that are held.
        void settle(const std::string& service, std::function<void()> then) { holds_.settle(service, std::move(then)); }
        [[nodiscard]] Answer give_back(const Admission& admission, const Peer& peer, const OwnedFd& process);

        // What keeps sockets from being held for as long as policy says.
        [[nodiscard]] std::vector<std::string> warnings() const;

private:
        [[nodiscard]] bool on_gone(const Held& held);
        void on_there(const Held& held);
        void on_end(const Held& held, HoldEnd why);
        void end_hold(const Held& held, const std::string& why);
        // Sockets that PID 1 has passed, on their way to the holder of their service.
        struct Adoption {
                std::vector<std::uint64_t> cookies;
                std::vector<OwnedFd> sockets;
                hands::Charge charge;
        };
        void adopt(const std::string& service, Adoption adoption);
        [[nodiscard]] std::string warn_of_late() const;  // empty: nothing to warn of
        [[nodiscard]] const Registration* find(const std::string& service, std::uint64_t cookie) const;

        Registry& registry_;
        const PolicyInForce& policy_;
        Refusals& refusals_;
        ServiceEntries& entries_;
        Audit& audit_;
        Holds holds_;
        std::set<HoldKey> late_;  // not held: who sent them was known to be admitted only when a hand had taken them
};

}  // namespace sockbroker
