// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the unit's own filter of system calls lets a supervisor be: tried in a child, since such a filter may kill.
#pragma once

#include "broker/base/result.h"

namespace sockbroker::supervise {

// An error names the call and the line of the unit that allows it.
[[nodiscard]] Result<void> probe_calls();

}  // namespace sockbroker::supervise
