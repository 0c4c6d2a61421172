// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Helper processes: forked from the broker before it has opened anything, each with one end of a socket pair and
// nothing else of the broker's. What is theirs to do, and what they give up beyond this, is their own matter.
#pragma once

#include <functional>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

// What a helper does with its end of a SOCK_SEQPACKET pair; it ends when this returns, or when the other end is closed,
// which it has to look for itself.
using HelperMain = std::function<void(OwnedFd socket)>;

// The broker's end, non-blocking. The helper keeps standard error, has no capability and none to get, dies with the
// process that made it, and of the signals SIGTERM, SIGINT and SIGHUP none ends it: PID 1 sends those to the whole
// unit. Call it before any thread is made.
[[nodiscard]] Result<OwnedFd> start_helper(const char* name, const HelperMain& main);

}  // namespace sockbroker
