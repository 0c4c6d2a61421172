// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which loopback address a socket of the program gets. Pure: the same for each instance of a service, so that the next
// one joins the SO_REUSEPORT group of the one before.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "broker/base/net.h"

namespace sockbroker::supervise {

// Another local user may sit on one of them, as anybody may bind there: so there are several.
inline constexpr unsigned kPlaces = 8;

// 127.64.0.1 to 127.223.255.254 for IPv4 (and for sockets of both families), an address of fd73:6f63:6b62::/48 for
// IPv6, where UdpReply=original lets the unit bind its UDP ports, from a hash of the service's name; `attempt` is below
// kPlaces.
[[nodiscard]] Address place_of(std::string_view service, Family family, unsigned attempt);

// The ports to try on loopback, the best first. UDP keeps the port, since answers carry it. So does TCP where an
// ordinary user may bind it and nobody has it on all addresses, else it is a high one.
[[nodiscard]] std::vector<std::uint16_t> ports_of(Protocol protocol, std::uint16_t asked, unsigned first_unprivileged);

}  // namespace sockbroker::supervise
