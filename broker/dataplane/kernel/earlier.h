// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The pinned state of releases before this one: what outlives a broker is carried into maps of this layout, so that an
// upgrade needs no unload. Rules are not: the program of before goes on by its own, beside the new one, which has none
// and passes everything on, until the broker has compiled its policy. Then the link of before is detached.
//
// New maps are filled first, then pinned beside the old ones (next_*), then take their names; the header's rename is
// the moment from which on a start finishes what it finds half done, and before which it undoes it. Nothing but
// removing a pin and detaching a link is left for a broker that runs, which may do no more.
#pragma once

#include <array>
#include <cstdint>

#include "broker/base/result.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

// Where the link of before is pinned for as long as its rules are in force.
inline constexpr const char* kEarlierLinkPin = "earlier_link";

[[nodiscard]] bool is_earlier_layout(std::uint32_t layout);

// Of sb_header: `secret` and the two of `flow_secret`. 0: the layout had none.
using Secrets = std::array<std::uint64_t, 3>;

struct EarlierState {
        std::array<OwnedFd, kMaps> maps;  // those that count, else no descriptor
        std::uint32_t layout = 0;
        Capacity capacity;
        std::uint32_t service_ids = 0;
        std::uint32_t generation = 0;
        Secrets secrets{};

        [[nodiscard]] int fd(KernelMap map) const { return maps[static_cast<std::size_t>(map)].get(); }
};

// Errors: a map is missing, or of another type or size than its layout says.
[[nodiscard]] Result<EarlierState> open_earlier(const PinDir& pins, std::uint32_t layout);

// Services, their sockets and whose they are, counters. `after` is at least as large, and shares the map of flows.
[[nodiscard]] Result<void> copy_earlier(const EarlierState& before, const KernelObjects& after);

// Attaches the program, pins all beside what is there, and `link` as that of before.
[[nodiscard]] Result<void> pin_beside(const PinDir& pins, const EarlierState& before, const KernelObjects& objects,
                                      int program, int link);

// Finishes or undoes what pin_beside() and a crash left.
[[nodiscard]] Result<void> settle_move(const PinDir& pins);

// Takes the link of before up, where there is one still.
[[nodiscard]] Result<KernelObjects> take_earlier_link(const PinDir& pins, KernelObjects objects);

// There are rules now: ends the dispatch of before.
void forget_earlier(const PinDir& pins, KernelObjects& objects);

}  // namespace sockbroker
