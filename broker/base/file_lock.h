// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one lock of a directory of pins: whoever changes what is in it holds it.
#pragma once

#include <chrono>

#include "broker/base/result.h"

namespace sockbroker {

// flock(2), exclusive: it ends with the last copy of the descriptor. EWOULDBLOCK: another had it for all that time.
[[nodiscard]] Result<void> lock_file(int fd, std::chrono::milliseconds patience);

}  // namespace sockbroker
