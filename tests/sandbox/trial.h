// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A broker whose filter refuses nothing and tells everything: the calls that the real one would refuse are carried out,
// and each is a line "sandbox trial: CALL ARGUMENTS" on standard error. Part of a test build of its own
// (-Dsandbox_tests=true), never of the daemon.
#pragma once

#include "broker/base/result.h"
#include "sandbox/compile.h"

namespace sockbroker {

// In place of Filter::install(). Makes one refused call itself, getpriority(2), so that silence means something.
[[nodiscard]] Result<void> install_for_trial(const sandbox::Filter& filter);

}  // namespace sockbroker
