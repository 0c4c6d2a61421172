// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A Profile to classic BPF, as data: to be looked at, evaluated (evaluator.h) and installed byte by byte as it was
// looked at.
//
// A profile becomes one program of two parts: arguments.h makes the first, which knows arguments and refuses what no
// line allows; what it lets pass goes on to libseccomp's, which knows architectures and names.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "sandbox/profile.h"

namespace sockbroker::sandbox {

struct Filter {
        using Program = std::vector<sock_filter>;
        std::vector<Program> programs;  // compile() makes one

        // For all threads of the process and what they execute, for good. Needs no_new_privs (or CAP_SYS_ADMIN).
        [[nodiscard]] Result<void> install() const;

        // For the calling thread and what it executes, by prctl(2): seccomp(2) is in none of systemd's sets of calls,
        // so that a unit's SystemCallFilter= may forbid it.
        [[nodiscard]] Result<void> install_in_this_thread() const;
};

enum class Denial : std::uint8_t {
        kEnforce,
        kLogOnly,  // for a trial: what would be refused is allowed and written to the kernel's audit log
};

// For the architecture of this process. Lines for calls of other architectures have no effect.
[[nodiscard]] Result<Filter> compile(const Profile& profile, Denial denial = Denial::kEnforce);

// The program in a memfd, as an array of struct sock_filter: what seccomp_export_bpf(3) writes.
[[nodiscard]] Result<OwnedFd> to_memfd(const Filter::Program& program);

}  // namespace sockbroker::sandbox
