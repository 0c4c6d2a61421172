// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-run --supervise: the supervisor is started, this process confines itself and becomes the program.
#pragma once

#include "sandbox/compile.h"
#include "sandbox/run/options.h"

namespace sockbroker::launcher {

// What a profile must allow beside its own for a program that makes its sockets itself.
[[nodiscard]] const char* supervised_profile_text();

// Returns only if the program was not run.
[[nodiscard]] int run_supervised(const Options& options, const sandbox::Filter& filter);

}  // namespace sockbroker::launcher
