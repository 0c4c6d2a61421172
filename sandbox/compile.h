// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A Profile to classic BPF, as data: to be looked at, evaluated (evaluator.h) and installed byte by byte as it was
// looked at.
//
// A profile becomes up to two programs, of which the kernel takes the strictest answer. libseccomp makes the one that
// knows architectures and names; arguments.h makes the other, which knows arguments. So calls that nobody named get
// what `default:` says, and wrong arguments get what `arguments:` says, without either knowing of the other.
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
        std::vector<Program> programs;  // in the order in which they are installed

        // For all threads of the process and what they execute, for good. Needs no_new_privs (or CAP_SYS_ADMIN).
        [[nodiscard]] Result<void> install() const;
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
