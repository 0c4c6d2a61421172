// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes to the journal what happens to the sockets of a service, and what is said of them, within what one service may
// have of it. Whatever a service can bring about itself, again and again, goes through here.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "broker/audit/audit.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/service_log.h"

namespace sockbroker {

class ServiceEntries {
public:
        ServiceEntries(Audit& audit, const PolicyInForce& policy) : audit_(audit), policy_(policy) {}

        // Written, or counted where its service has had many of its kind.
        void write(Entry entry);
        // One of no socket and no peer.
        void note(const std::string& service, int priority, std::string message);
        // False: it was said of each of these sockets since the policy came.
        [[nodiscard]] bool is_news(const std::string& service, std::span<const std::uint64_t> cookies,
                                   const std::string& warning);
        // An entry for those that were only counted. To be called every second or so.
        void tell_left_out();

private:
        Audit& audit_;
        const PolicyInForce& policy_;
        ServiceLog log_;
        std::weak_ptr<const Policy> said_under_;
        std::set<std::uint64_t> said_;  // hashes of what and of which socket
};

}  // namespace sockbroker
