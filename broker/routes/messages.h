// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a kind of route looks like in the kernel (table, type, scope, device), as messages of rtnetlink(7). Every
// message carries the protocol number, also those that remove: the kernel then leaves alone what somebody else has
// made. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "broker/base/net.h"
#include "broker/routes/route.h"

struct nlmsghdr;

namespace sockbroker::routes {

inline constexpr unsigned kLoopback = 1;  // its index in every network namespace

struct Numbers {
        std::uint32_t protocol = 0;        // RouteProtocol=
        std::uint32_t announce_table = 0;  // AnnounceTable=
};

[[nodiscard]] std::uint32_t table_of(Kind kind, const Numbers& numbers);
[[nodiscard]] std::uint32_t table_of(const nlmsghdr* route);  // of a whole message with an rtmsg

// The request for all routes of a kind and family, for a dump: head and table.
void put_request(nlmsghdr* message, Kind kind, Family family, const Numbers& numbers);
// One route, to be made or removed.
void put_route(nlmsghdr* message, Kind kind, const Prefix& prefix, const Numbers& numbers);

// The prefix of a route of the broker's own, in the very form in which it makes them; none: another message.
[[nodiscard]] std::optional<Prefix> own_route(const nlmsghdr* message, Kind kind, const Numbers& numbers);
// The network that an address of an interface other than the loopback is in; none: another message.
[[nodiscard]] std::optional<Prefix> connected_network(const nlmsghdr* message);

}  // namespace sockbroker::routes
