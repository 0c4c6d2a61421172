// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Policies read as the broker reads them: as its user, and within the bounds that it gives itself.
#pragma once

#include <vector>

#include "broker/base/directories.h"
#include "broker/base/result.h"
#include "broker/ctl/in_time.h"
#include "broker/ctl/reach.h"
#include "broker/policy/diagnostic.h"

namespace sockbroker::ctl {

inline constexpr const char* kBrokerUser = "sockbroker";

// What is wrong with the files of these directories for a broker that confined itself now. `user`: and that is this
// user, which only root can become (others: reach.h); null: the caller.
[[nodiscard]] Result<std::vector<Diagnostic>> read_as_broker(const Directories& places, const UserIds* user,
                                                             Deadline deadline);

}  // namespace sockbroker::ctl
