// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a process gives up before it becomes the program: every capability, and any way to gain one; and to look into
// other processes. One way, and checked afterwards. The seccomp filter comes last and is not made here
// (sandbox/compile.h).
#pragma once

#include "broker/base/landlock.h"
#include "broker/base/result.h"

namespace sockbroker::launcher {

// Makes the effective user and group the only ones. Clears the capability sets, the bounding set and securebits too as
// far as the process may (CAP_SETPCAP), and sets no_new_privs. An error if any capability is left, or may come back.
[[nodiscard]] Result<void> give_up_privileges();

// enter_domain(), where the kernel has it and the unit's own filter of system calls lets it be.
[[nodiscard]] Result<void> shut_in(TcpBind tcp_bind);

}  // namespace sockbroker::launcher
