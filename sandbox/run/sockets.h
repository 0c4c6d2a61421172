// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets that a service wants made. Knows nothing of the broker.
#pragma once

#include <string>

#include "broker/base/result.h"
#include "broker/client/named_fds.h"
#include "sandbox/run/options.h"

namespace sockbroker::launcher {

// Bound as the broker's documentation wants it: SO_REUSEPORT, so that the next instance can join the group, and IPv6
// alone, but for a v4-mapped address, which takes both families. A datagram socket of IPv6 gets IPV6_FREEBIND, without
// which its answers could not leave from the addresses that were asked, and which the program in the sandbox cannot
// set.
[[nodiscard]] Result<NamedFd> make_socket(const Listen& listen, const std::string& name);

// An IP socket; all else that was passed is the program's alone.
[[nodiscard]] bool is_ip_socket(int fd);

}  // namespace sockbroker::launcher
