// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Ports that the kernel has chosen for the program (a bind to port 0), and which of its sockets has one. The program
// may bind another socket of the protocol there: of the other family, or to see whether SO_REUSEPORT works, as HAProxy
// does at its start. Port 0 would give it the same in time, so nothing is given away. Bounded: of too many the last
// ones are known, since who wants that port wants it at once.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>

#include "broker/base/net.h"

namespace sockbroker::supervise {

class ChosenPorts {
public:
        static constexpr std::size_t kMost = 64;

        // The socket that is descriptor `number` of the process was bound to port 0; `fd` is a copy.
        void note(pid_t pid, int number, int fd, Protocol protocol);
        // Whether one of those sockets is open in its process, and has the port still.
        [[nodiscard]] bool has(Protocol protocol, std::uint16_t port) const;

private:
        struct Chosen {
                std::uint64_t cookie = 0;
                pid_t pid = 0;
                int number = 0;
                Protocol protocol = Protocol::kTcp;
                std::uint16_t port = 0;
        };
        std::deque<Chosen> chosen_;  // the oldest first
};

}  // namespace sockbroker::supervise
