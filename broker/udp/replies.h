// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpReply=original: which units have the programs that set the source of their answers and let them bind their ports.
// Those that policy names for such a service, from when one of their processes asks for it or hands a UDP socket over,
// until policy or the unit's cgroup is gone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"
#include "broker/dataplane/kernel/unit_programs.h"
#include "broker/peer/peer.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

// Whether a service with UdpReply=original names the unit. Pure.
[[nodiscard]] bool has_replies(const Policy& policy, std::string_view unit);

// The UDP ports of all of these, in ascending order, as many as can be granted. Pure.
[[nodiscard]] std::vector<std::uint16_t> granted_ports(const Policy& policy, std::string_view unit);

class UdpReplies {
public:
        explicit UdpReplies(UnitPrograms& programs) : programs_(programs) {}

        // The service admits the peer. Its unit has the programs from now on, and so have the .socket units that the
        // service names, since what PID 1 makes for one is made in its cgroup.
        [[nodiscard]] Result<void> prepare(const Policy& policy, const Service& service, const Peer& peer);

        // After a policy was taken, or a start: takes them away from units that it does not name any more, grants
        // others what it grants now, and gives them to those that have sockets already. What could not be done, in
        // words.
        [[nodiscard]] std::vector<std::string> follow(const Policy& policy, const Registry& registry);

        // Forgets units whose cgroup is gone. To be called every second or so.
        void sweep_if_due(std::uint64_t now_usec);

private:
        [[nodiscard]] bool has_programs(const std::string& unit) const;
        [[nodiscard]] Result<void> attach(const Policy& policy, const std::string& unit, pid_t pid);

        static constexpr std::uint64_t kSweepUsec = 1'000'000;
        UnitPrograms& programs_;
        std::uint64_t swept_usec_ = 0;
};

}  // namespace sockbroker
