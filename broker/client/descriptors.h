// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How many descriptors this process may still open.
#pragma once

#include <cstddef>

namespace sockbroker {

// Below RLIMIT_NOFILE, as far as `enough`, which is the answer too where that is not known. It opens none, so another
// thread may take them meanwhile.
[[nodiscard]] std::size_t free_descriptors(std::size_t enough);

}  // namespace sockbroker
