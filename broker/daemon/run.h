// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The daemon from its first to its last breath: set up with privilege, drop it, then the event loop.
#pragma once

#include "broker/base/result.h"
#include "broker/daemon/options.h"

namespace sockbroker {

[[nodiscard]] Result<void> run_daemon(const DaemonOptions& options);

}  // namespace sockbroker
