// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way to the right to look into the program where uids alone do not give it: the program runs in a user namespace,
// and the supervisor, outside it and of the uid that made it, has every capability over it.
#pragma once

#include "broker/base/result.h"

namespace sockbroker::supervise {

// This process goes into a user namespace of its own, in which its uid and gid are what they are and everybody else is
// nobody. It has all capabilities there afterwards, to be given up. EPERM, ENOSPC: not here (RestrictNamespaces=,
// sysctls).
[[nodiscard]] Result<void> enter_user_namespace();

// kernel.yama.ptrace_scope, 0 where there is none.
[[nodiscard]] int ptrace_scope();

}  // namespace sockbroker::supervise
