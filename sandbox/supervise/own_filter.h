// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The supervisor's own profile, supervisor.profile, which is part of the program: a file at run time could be another.
#pragma once

#include <optional>

#include "sandbox/profile.h"

namespace sockbroker::supervise {

// `names`: it answers getsockname(2) too, which is written to the program's memory.
[[nodiscard]] std::optional<sandbox::Profile> own_profile(bool names);

}  // namespace sockbroker::supervise
