// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The attachment of a dispatch program to the network namespace of this process, as a pinned link.
#pragma once

#include <cstdint>
#include <optional>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

[[nodiscard]] Result<OwnedFd> attach(int program);

// Inode of the network namespace that it is attached to. 0: it has lost its namespace, or was detached by somebody. An
// error if it is no link of an sk_lookup program.
[[nodiscard]] Result<std::uint64_t> netns_of_link(const PinDir& pins, int link);

// The same of one that netns_of_link() has taken for a link of this program's. None: the kernel does not say.
[[nodiscard]] std::optional<std::uint64_t> attached_netns(int link);

// An error too if it is attached to another network namespace. False: to none.
[[nodiscard]] Result<bool> check_link(const PinDir& pins, int link);
// The same with a network namespace, by its inode, in place of that of this process.
[[nodiscard]] Result<bool> check_link(const PinDir& pins, int link, std::uint64_t netns);

// Puts this build's program where the pinned link's was. A link that is attached no more is made anew.
[[nodiscard]] Result<void> take_over_link(const PinDir& pins, int link, int program);

}  // namespace sockbroker
