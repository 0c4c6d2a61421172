// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which registrations a policy takes away: those that it would not admit. Pure.
#pragma once

#include <string>
#include <string_view>

#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"
#include "broker/registry/registry.h"

namespace sockbroker {

// Empty: it stays.
[[nodiscard]] std::string_view why_revoked(const Policy& policy, const std::string& service,
                                           const Registration& registration, const Accounts& accounts);

// Rows of them all, see gone_socket_line().
[[nodiscard]] std::string rows_of_revoked(const Policy& policy, const Registry& registry, const Accounts& accounts);

}  // namespace sockbroker
