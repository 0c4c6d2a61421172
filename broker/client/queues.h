// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How much waits in the queues of sockets: connections that a listener has not accepted yet, datagrams that nobody has
// read. Asks the kernel by sock_diag(7), which needs no privilege and shows the caller's network namespace only.
#pragma once

#include <linux/inet_diag.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>

#include "broker/base/net.h"
#include "broker/base/result.h"

namespace sockbroker {

struct Queue {
        std::uint32_t depth = 0;             // connections for TCP, bytes for UDP
        std::uint32_t limit = 0;             // of connections, TCP only
        std::optional<std::uint32_t> drops;  // since the socket was made: connections, datagrams
};

// All listeners, or unconnected UDP sockets, of one address family of sockets, with the attributes that came with each.
[[nodiscard]] Result<void> dump_sockets(
        Protocol protocol, int address_family,
        const std::function<void(const inet_diag_msg& socket, std::span<const char> attributes)>& take);

// By socket cookie. Of all listeners, or unconnected UDP sockets, of one address
// family of sockets (AF_INET or AF_INET6; a dual-stack socket is AF_INET6).
using Queues = std::map<std::uint64_t, Queue>;
[[nodiscard]] Result<Queues> read_queues(Protocol protocol, int address_family);

}  // namespace sockbroker
