// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether anybody reads a socket, from samples of what waits in it. Nobody can ask the kernel who else has a socket
// open; but what waits for long and never becomes less is read by nobody. Pure.
#pragma once

#include <cstdint>

namespace sockbroker {

// How often queues are looked at for a HoldSec= of so long: several times before it is over, and no more often than
// costs nothing.
[[nodiscard]] std::int64_t sampling_of(std::int64_t hold_usec);

class Unread {
public:
        // `waiting` as waiting_in() says. True: something was read since the sample before, for there is less now.
        [[nodiscard]] bool sample(std::uint64_t waiting, std::int64_t now_usec);

        // Something has waited since then, and none of the samples showed that anything was read.
        [[nodiscard]] bool for_longer_than(std::int64_t span_usec, std::int64_t now_usec) const;

private:
        // After a time in which nobody took samples (a suspended machine) a few tell no more than one does.
        static constexpr unsigned kEnough = 4;

        std::uint64_t waiting_ = 0;
        std::int64_t since_usec_ = 0;
        unsigned samples_ = 0;  // since then
};

}  // namespace sockbroker
