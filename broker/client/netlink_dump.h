// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A dump of the kernel's by netlink(7): sent once, each message of the answer handed to the caller.
#pragma once

#include <linux/netlink.h>

#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

// `request` begins with its nlmsghdr. `take` gets what follows that of each message. `what` is asked for, for people.
[[nodiscard]] Result<void> netlink_dump(int protocol, std::span<const char> request, std::string_view what,
                                        const std::function<void(std::span<const char> body)>& take);

// The first attribute of that type among those in `data`.
[[nodiscard]] std::optional<std::span<const char>> netlink_attribute(std::span<const char> data, unsigned type);

}  // namespace sockbroker
