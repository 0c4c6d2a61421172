// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What waits in a socket for its owner to read it: the one place that asks, for the question must never wait for a lock
// that the owner can keep.
#pragma once

#include <cstdint>

namespace sockbroker {

// Connections that a listener has not accepted, or bytes of memory that datagrams take; 0: nothing waits, or it is no
// such socket. Where anything waits it is 1 at least.
[[nodiscard]] std::uint64_t waiting_in(int fd);

}  // namespace sockbroker
