// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpReply=original: which units have the programs that set the source of their answers and let them bind their ports.
// Those of which such a service has admitted a process that asked for it or handed a UDP socket over, and still admits
// it; until the unit's cgroup is gone. Who was admitted is kept in memory; after a start those count that have sockets.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"
#include "broker/dataplane/kernel/unit_programs.h"
#include "broker/peer/peer.h"
#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

struct GrantedPorts {
        std::vector<std::uint16_t> ports;     // in ascending order
        std::vector<std::uint16_t> left_out;  // for which there is no room
};
// The UDP ports of these services, each of which has UdpReply=original: those of the first ones, as many as can be
// granted. Pure.
[[nodiscard]] GrantedPorts granted_ports(const std::vector<const Service*>& services);

// For people, of a unit that cannot have all its ports.
[[nodiscard]] std::string text_of_left_out(std::string_view unit, const GrantedPorts& granted);

class UdpReplies {
public:
        explicit UdpReplies(UnitPrograms& programs) : programs_(programs) {}

        // The service admits the peer. Its unit has the programs from now on, and so have the .socket units that the
        // service names, since what PID 1 makes for one is made in its cgroup. Returns what the peer's unit has now.
        [[nodiscard]] Result<GrantedPorts> prepare(const Policy& policy, const Service& service, const Peer& peer);

        // After a policy was taken, after a start, and when the host has said who accounts are: takes the programs away
        // from units of which nobody is admitted any more, grants others what belongs to them now, and gives them to
        // those that have sockets already. The registry has only sockets of those who are still admitted. What could
        // not be done, in words.
        [[nodiscard]] std::vector<std::string> follow(const Policy& policy, const Accounts& accounts,
                                                      const Registry& registry);

        // Forgets units whose cgroup is gone. To be called every second or so.
        void sweep_if_due(std::uint64_t now_usec);

private:
        struct Admitted {
                std::string service;
                Peer peer;  // the last one
        };
        using OfCgroup = std::vector<Admitted>;  // each service once, the first admission first

        static void note(OfCgroup& all, const std::string& service, const Peer& peer);
        [[nodiscard]] static GrantedPorts granted(const Policy& policy, const OfCgroup& all);
        [[nodiscard]] bool has_programs(const std::string& unit) const;
        [[nodiscard]] Result<GrantedPorts> attach(const Policy& policy, const std::string& unit, pid_t pid,
                                                  const Service& service, const Peer& peer);
        void note_registrants(const Policy& policy, const Registry& registry);
        void take_from_unadmitted(const Policy& policy, const Accounts& accounts);
        void give_to_registrants(const Policy& policy, const Registry& registry, std::vector<std::string>& failures);
        void grant(const Policy& policy, std::vector<std::string>& failures);
        void forget_detached();

        static constexpr std::uint64_t kSweepUsec = 1'000'000;
        UnitPrograms& programs_;
        std::map<std::uint64_t, OfCgroup> admitted_;  // by the id of a cgroup that has the programs
        std::uint64_t swept_usec_ = 0;
};

}  // namespace sockbroker
