// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What may take for ever (NSS: a directory that hangs; files of a file system that hangs), done in a process of its own
// until a deadline.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "broker/base/result.h"

namespace sockbroker::ctl {

using Deadline = std::chrono::steady_clock::time_point;

// For ever if that is how long it may take.
[[nodiscard]] Deadline deadline_after(Deadline start, std::chrono::microseconds span);

// All that `tell` has written to the descriptor when it ended, or until then. It runs in a child, whose end nobody
// waits for if it is late: a process may hang in the kernel too. Whoever wants to know whether it came to its end lets
// it tell that last.
[[nodiscard]] Result<std::string> told_until(Deadline deadline, const std::function<void(int pipe)>& tell);

// All of it, in one write(2): records of several threads do not mix while they have PIPE_BUF bytes at most.
void write_record(int pipe, const std::string& record);

}  // namespace sockbroker::ctl
