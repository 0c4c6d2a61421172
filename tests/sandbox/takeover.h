// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A broker that was taken over: hostile code that runs inside it, with all that it has open, once it serves. Part of a
// test build of its own (-Dsandbox_tests=true), never of the daemon.
#pragma once

#include "broker/daemon/options.h"

namespace sockbroker {

// Tries what $SOCKBROKER_TAKEOVER names, or all that does not end the process, and writes a line "takeover NAME ERRNO"
// for each to standard error; 0: it succeeded.
void act_as_if_taken_over(const DaemonOptions& options);

}  // namespace sockbroker
