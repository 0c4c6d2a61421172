// SPDX-License-Identifier: LGPL-2.1-or-later
//
// User= and Group= values to numbers, through NSS. Asked anew each time: the user of a DynamicUser= service
// exists only while its unit runs, and its number is given to others afterwards.
#pragma once

#include "broker/policy/decide.h"

namespace sockbroker {

[[nodiscard]] Accounts system_accounts();

}  // namespace sockbroker
