// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Maps copied into others that are at least as large.
#pragma once

#include <cstdint>

#include "broker/base/result.h"

namespace sockbroker {

[[nodiscard]] Result<std::uint32_t> map_entries(int fd);

// Both are arrays of the same kind and size of value; `name` is for messages.
[[nodiscard]] Result<void> copy_array(int before, int after, const char* name);

// From one sockmap to another, into the same slots. A listener that was shut down cannot enter a sockmap (EOPNOTSUPP)
// and served nobody: it is skipped.
[[nodiscard]] Result<void> copy_sockets(int before, int after);

}  // namespace sockbroker
