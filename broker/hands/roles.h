// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What each process of this room gives up. Profiles are in sandbox/ and built in.
#pragma once

#include <array>

#include "broker/base/result.h"
#include "broker/hands/wire.h"
#include "sandbox/compile.h"
#include "sandbox/profile.h"

namespace sockbroker::hands {

[[nodiscard]] Result<sandbox::Profile> profile_of(Role role);
[[nodiscard]] Result<sandbox::Profile> zygote_profile();  // all of the above, and what forking needs

// Compiled before the zygote has a filter itself: the library needs more than any of them allows.
using Filters = std::array<sandbox::Filter, kRoles>;
[[nodiscard]] Result<Filters> compile_filters();

// For the zygote and what it forks, beside the filter and the capabilities: no core file, not to be looked into, no
// file (Landlock without a rule). As many descriptors as the hard limit allows.
struct Given {
        int missing_landlock = 0;  // errno, where this kernel has none
        std::size_t max_fds = 0;
};
[[nodiscard]] Result<Given> give_up_the_rest();

}  // namespace sockbroker::hands
