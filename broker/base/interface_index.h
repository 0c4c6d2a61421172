// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names and numbers of the network interfaces in the network namespace of the caller. Asked by a netlink dump: the
// ioctl for one name makes the kernel load a module of that name, and wait for it, where the caller has CAP_NET_ADMIN
// and there is no such interface. Other names of an interface (ip link property add altname) do not count: two names
// for one interface would make the validity of a policy depend on the host.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "broker/base/owned_fd.h"

namespace sockbroker {

// By name, as they are at this moment; 0: there is none.
[[nodiscard]] std::function<std::uint32_t(const std::string& name)> interfaces_now();

// From now on interfaces are those of the network namespace of this socket (NETLINK_ROUTE), which need not be the one
// of this process. Once, before there is another thread.
void ask_interfaces_by(OwnedFd netlink);

// From now on they are those of this moment, and that socket is closed: it would keep its network namespace.
void stop_asking_for_interfaces();

}  // namespace sockbroker
