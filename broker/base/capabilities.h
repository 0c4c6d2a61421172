// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker may do: three capabilities to load its programs, none to serve, also when it was started as root.
// Nothing here ever raises anything.
#pragma once

#include <sys/capability.h>

#include <initializer_list>

#include "broker/base/result.h"

namespace sockbroker {

// Keeps only those of `wanted` that the process has, in the permitted and effective set; empties the inheritable and
// ambient ones and, where it may (CAP_SETPCAP), the bounding set, which exec alone looks at, and locks the securebits
// by which root would be given capabilities; sets no_new_privs. For good: call it before any thread is made.
[[nodiscard]] Result<void> keep_capabilities(std::initializer_list<cap_value_t> wanted);

// Whether at least one of them is permitted.
[[nodiscard]] bool has_capability(std::initializer_list<cap_value_t> any);

}  // namespace sockbroker
