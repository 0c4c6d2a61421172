// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-run --supervise: the supervisor is started, this process confines itself and becomes the program.
#pragma once

#include "sandbox/compile.h"
#include "sandbox/run/options.h"

namespace sockbroker::launcher {

// What this profile does not allow and a program needs that makes its sockets itself, as lines of one; empty: nothing.
// Pure.
[[nodiscard]] std::string supervised_additions(const sandbox::Profile& profile);

// Returns only if the program was not run.
[[nodiscard]] int run_supervised(const Options& options, const sandbox::Filter& filter);

}  // namespace sockbroker::launcher
