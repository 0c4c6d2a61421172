// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A hand from inside: obeys one order after the other. Anything that it does may sleep for as long as whoever sent the
// descriptors likes; then it is left behind and replaced, and ends when it wakes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "broker/hands/wire.h"

namespace sockbroker::hands {

struct Setup {
        Role role{};
        bool for_the_door = false;  // it closes what the door brings, too
        std::uint64_t netns_cookie = 0;
        std::size_t max_fds = 0;
};

// Returns when the core is gone. Descriptors have their numbers already (wire.h), its filter is installed.
void run_hand(const Setup& setup, const ClosedByDoor& closed);

}  // namespace sockbroker::hands
