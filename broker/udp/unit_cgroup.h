// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The cgroup of a system unit. Its path comes from the kernel (/proc/PID/cgroup of a process in it) or is where units
// are by default; either way it is the unit's only if nothing but slices stands above: those are made by PID 1 alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

struct UnitCgroup {
        OwnedFd directory;
        std::uint64_t id = 0;  // never given to another one
};

// The part of a cgroup's path that is the unit's: "/system.slice/x.service" of "/system.slice/x.service/worker". None:
// it is not in this unit. Pure.
[[nodiscard]] std::optional<std::string> unit_path(std::string_view path, std::string_view unit);

// Pid 0: no process is known. ENOENT: the unit has no cgroup, or none that was found.
[[nodiscard]] Result<UnitCgroup> open_unit_cgroup(const std::string& unit, pid_t pid);

}  // namespace sockbroker
