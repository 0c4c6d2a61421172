// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bindings of tubular, as its tubectl load-bindings reads them, to the text of a policy that dispatches the same. Pure.
#pragma once

#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker::ctl {

// Each label becomes a service, with both protocols, as there. What JSON or tubular would refuse, and labels that are
// no names of services, is an error that names the binding.
[[nodiscard]] Result<std::string> policy_of_tubular(std::string_view json);

}  // namespace sockbroker::ctl
