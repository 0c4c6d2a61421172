// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets that are there already and take the place of what the program opens: those of a .socket unit, which the
// supervisor was passed and keeps, and those that the broker held, which are given out once.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/socket/facts.h"
#include "sandbox/supervise/plan.h"

namespace sockbroker::supervise {

using Time = std::chrono::steady_clock::time_point;

struct Spare {
        std::string service;
        SocketFacts facts;
        bool held = false;
        Time drop_at = Time::max();  // if it was held
        unsigned used = 0;
};

// The index of the one that fits best. The same service, protocol and address family; UDP with the port that was asked,
// since answers carry it; one that was held with a port that the program's own would get. Of several the one used
// least. Pure.
[[nodiscard]] std::optional<std::size_t> choose(std::span<const Spare> spares, const std::string& service,
                                                const Asked& asked, std::span<const std::uint16_t> ports);

// What a bind was given.
struct Given {
        OwnedFd fd;
        bool before = false;  // another bind has it too: the same open file
};

class Spares {
public:
        // Of a .socket unit. Left out where the kernel cannot tell what it is.
        void add(const std::string& service, OwnedFd fd);
        // That the broker held, to be ended at that time. Left out too where it was held for two services and is here
        // already.
        void add_held(const std::string& service, OwnedFd fd, Time drop_at);

        // A descriptor of the one that fits, the caller's.
        [[nodiscard]] Given take(const std::string& service, const Asked& asked, std::span<const std::uint16_t> ports);

        // Ends those that were held and nobody has asked for by their time: no client is to wait in them.
        void drop_held(Time now);
        // When the next of them is to be ended; none: max.
        [[nodiscard]] Time next_drop() const;

private:
        void add(Spare spare, OwnedFd fd);

        std::vector<Spare> spares_;
        std::vector<OwnedFd> fds_;  // of the same index
};

}  // namespace sockbroker::supervise
