// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Larger maps in place of those that an earlier broker made. The new ones are filled and pinned beside the old, then
// the link gets the program over them, which is the switch, and then their pins take the old names. A crash leaves
// a state that settle_growth() finishes or undoes, depending on which program the link has.
#pragma once

#include "broker/base/result.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

// Rules in force, services, sockets, records and counters. What is counted between this and the switch is lost.
[[nodiscard]] Result<void> copy_state(const KernelObjects& before, const KernelObjects& after);

[[nodiscard]] Result<void> pin_grown(const PinDir& pins, const KernelObjects& objects, int program);

[[nodiscard]] Result<void> settle_growth(const PinDir& pins);

}  // namespace sockbroker
