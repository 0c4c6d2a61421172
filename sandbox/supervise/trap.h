// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The filter that hands bind(2) and listen(2) of the program to the supervisor. Pure. Filters of others, the profile's
// among them, are asked too, and the strictest answer counts: what they refuse never comes here.
#pragma once

#include "sandbox/compile.h"

namespace sockbroker::supervise {

// bind and listen: SECCOMP_RET_USER_NOTIF. socket(2) for MPTCP: EPROTONOSUPPORT, since the kernel dispatches to plain
// TCP alone, and who asks for MPTCP takes that then. io_uring_setup: ENOSYS, for it binds without a system call. All
// calls of another architecture: ENOSYS, for they have other numbers. Anything else is allowed here.
// With `names` getsockname comes too.
[[nodiscard]] sandbox::Filter::Program trap_program(bool names);

}  // namespace sockbroker::supervise
