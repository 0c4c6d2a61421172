// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Becoming another program.
#pragma once

#include <string>
#include <vector>

namespace sockbroker {

// Replaces this process by the program, found by PATH, with these words as its arguments. Returns only where that
// failed: the errno of execvp(3). `words` is not empty.
[[nodiscard]] int replace_process(const std::vector<std::string>& words);

}  // namespace sockbroker
