// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Policies read as the broker reads them: as its user, and within the bounds that it gives itself.
#pragma once

#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/policy/diagnostic.h"

namespace sockbroker::ctl {

inline constexpr const char* kBrokerUser = "sockbroker";

// What is wrong with the files of these directories for a broker that confined itself now. `as_its_user`: and that is
// the user sockbroker, which only root can become (others: reach.h); where there is no such user it makes no
// difference.
[[nodiscard]] Result<std::vector<Diagnostic>> read_as_broker(const std::vector<std::string>& config_dirs,
                                                             bool as_its_user);

}  // namespace sockbroker::ctl
