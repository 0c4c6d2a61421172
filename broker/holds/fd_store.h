// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PID 1's store of descriptors, sd_pid_notify_with_fds(3): what lies there is given back when the service starts again.
// Holders speak to it, through one socket that the broker connects before it confines itself. Whoever was not started
// by PID 1 has no such store.
#pragma once

#include <cstddef>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

// As many as the shipped unit lets PID 1 keep for it (FileDescriptorStoreMax=), which compares each new one with all
// that it has, and all again at each daemon-reload: with 4096 that takes it some seconds.
inline constexpr std::size_t kUsualStoreCapacity = 4096;

// How many it takes: $FDSTORE, which systemd sets from version 254 on.
[[nodiscard]] std::size_t fd_store_capacity();

// A datagram socket connected to $NOTIFY_SOCKET; none where there is no such variable.
[[nodiscard]] Result<OwnedFd> connect_to_manager();
// Connects it again, to whoever listens there now. Only where there is that variable.
[[nodiscard]] Result<void> reach_manager(int socket);

}  // namespace sockbroker
