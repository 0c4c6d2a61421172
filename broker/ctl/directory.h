// SPDX-License-Identifier: LGPL-2.1-or-later
//
// This host's directory of accounts (NSS) as verify asks it: what has not answered in time has no answer, as it has
// for the broker.
#pragma once

#include <optional>
#include <string>

#include "broker/ctl/in_time.h"
#include "broker/ctl/reach.h"
#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"

namespace sockbroker::ctl {

// None: there is no such user, or no answer. The groups are those of /etc/group where the directory does not tell more.
[[nodiscard]] std::optional<UserIds> ids_of_user(const std::string& name, Deadline deadline);

// What it says of the names of this policy, all of which are asked now.
[[nodiscard]] Accounts accounts_of(const Policy& policy, Deadline deadline);

}  // namespace sockbroker::ctl
