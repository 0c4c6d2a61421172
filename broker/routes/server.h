// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The process that makes routes: one broker at a time speaks to it, over one socket. It opens all that it needs at its
// start, then gives up everything else: every capability but CAP_NET_ADMIN, all files, all system calls but those on
// its descriptors, which have fixed numbers so that a filter can name them.
#pragma once

#include <cstddef>
#include <string>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/routes/kernel.h"

namespace sockbroker::routes {

struct ServerOptions {
        std::string socket_path;  // made where systemd has passed none
        Numbers numbers;
        std::size_t most = 0;  // prefixes of a kind
};

// Where systemd has passed the socket, and so can start it again: returns when no route is wanted and nobody has asked
// for a second. Descriptors from 3 on are closed, but for that one.
[[nodiscard]] Result<void> serve(const ServerOptions& options);

// Its filter of system calls as it is built in, for a person to read.
[[nodiscard]] Result<std::string> describe_routes_filter();

}  // namespace sockbroker::routes
