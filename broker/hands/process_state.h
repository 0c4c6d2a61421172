// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether a process sleeps or waits for a processor, and how much of one it has had: proc(5), /proc/PID/stat.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace sockbroker::hands {

struct ProcessState {
        bool runnable = false;
        std::int64_t cpu_usec = 0;  // in steps of 10 ms
};

[[nodiscard]] std::optional<ProcessState> parse_process_state(std::string_view stat);
[[nodiscard]] std::optional<ProcessState> state_of(pid_t pid);  // none: there is no such process, or no /proc

}  // namespace sockbroker::hands
