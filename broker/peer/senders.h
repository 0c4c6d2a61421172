// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who asks, where the same processes and units ask again and again: from Linux 6.13 the kernel says in one call, of the
// process behind a pidfd, whose it is and in which cgroup. What is remembered is only what cannot change: the unit of a
// cgroup, whose id is never given to another one, and when a process was started that still is there. On older
// kernels, and where anything is not as expected, identify() is asked.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "broker/peer/incarnation.h"
#include "broker/peer/peer.h"

namespace sockbroker {

class Senders {
public:
        Senders();

        // As the function of that name.
        [[nodiscard]] std::expected<Peer, Refusal> identify(const Message& message);

private:
        struct Known {
                std::uint64_t inode = 0;  // of its pidfd: never given to another process
                Incarnation process;
                std::uint64_t asked = 0;
        };
        static constexpr std::size_t kMaxKnown = 32;
        static constexpr std::size_t kMaxUnits = 4096;

        // Nothing: to be found the long way.
        [[nodiscard]] std::optional<std::string> unit_by_pidfd(int pidfd, const Peer& peer);
        [[nodiscard]] std::optional<std::string> unit_by_age(const Peer& peer, std::int64_t sent_usec);
        [[nodiscard]] std::optional<std::string> unit_in(std::uint64_t cgroup, int pidfd, pid_t pid);
        [[nodiscard]] const Incarnation* known(pid_t pid, int pidfd);

        bool usable_ = false;
        std::unordered_map<std::uint64_t, std::string> units_;  // by cgroup
        std::array<Known, kMaxKnown> known_;
        std::uint64_t asked_ = 0;
};

}  // namespace sockbroker
