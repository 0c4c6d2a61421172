// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From the name of a network interface to its number, in the network namespace of the caller. Asked by ioctl(2), which
// any socket takes, so that no netlink is needed. Other names of an interface (ip link property add altname) do not
// count: two names for one interface would make the validity of a policy depend on the host.
#pragma once

#include <cstdint>
#include <string>

namespace sockbroker {

[[nodiscard]] std::uint32_t interface_index(const std::string& name);  // 0: there is none now

}  // namespace sockbroker
