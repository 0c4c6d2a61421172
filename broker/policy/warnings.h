// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Warnings that go with the `ok` of a registration: policy admits it, but it is probably not as intended. Pure.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "broker/policy/policy.h"
#include "broker/socket/facts.h"

namespace sockbroker {

// UDP sockets whose port is none of the service's, since their answers carry that port.
[[nodiscard]] std::vector<std::string> port_warnings(const Service& service, std::span<const SocketFacts> sockets);

// [family]: whether any socket of the service serves it.
using Served = std::array<bool, 2>;

// Of a socket bound there: a family that the service has bindings of and nobody serves, beside one that is served.
[[nodiscard]] std::optional<std::string> family_warning(const Service& service, Protocol protocol,
                                                        const Endpoint& bound, const Served& served);

// A socket that is bound where one of another service is: the two are one SO_REUSEPORT group.
[[nodiscard]] std::string group_warning(const Service& service, const SocketFacts& socket, const std::string& other);

}  // namespace sockbroker
