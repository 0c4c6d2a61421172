// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The whole of sockbroker-run: sockets, broker, sandbox, program, in this order. The program takes this process's
// place: its exit status, its signals, Type=notify and LISTEN_PID are then right without anybody to forward them.
#pragma once

#include "sandbox/run/options.h"

namespace sockbroker::launcher {

// Returns only if the program was not run: the exit status, after the person was told.
[[nodiscard]] int run(const Options& options);

// Becomes the program. Returns only where that fails: the exit status, after the person was told.
[[nodiscard]] int execute(const std::vector<std::string>& command);

// "sockbroker-run: MESSAGE" on standard error.
void complain(std::string_view message);

}  // namespace sockbroker::launcher
