// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Descriptors as the C interface returns them: an array for free(3).
#pragma once

#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker {

// A copy; the number, or -ENOMEM. NULL where there are none.
[[nodiscard]] int give_array(const std::vector<int>& fds, int** ret_fds) noexcept;
// Those in it are the caller's, in case of success.
[[nodiscard]] int give_away(std::vector<OwnedFd>& fds, int** ret_fds) noexcept;

}  // namespace sockbroker
