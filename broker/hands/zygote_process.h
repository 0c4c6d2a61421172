// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The zygote from inside: forks, reaps, kills its own children. It holds both ends of the queue from the door to the
// hands of disposal, which so outlives each of them.
#pragma once

#include <cstdint>

#include "broker/base/owned_fd.h"

namespace sockbroker::hands {

// Returns when the core is gone. Single-threaded; its own process.
void run_zygote(OwnedFd socket, std::uint64_t netns_cookie);

}  // namespace sockbroker::hands
