// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Files of the state directory that a loss of power leaves whole: the one of before, or the new one. Waits for the
// disk.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

// Appends to a file, whole.
using AppendText = std::function<Result<void>(std::string_view)>;

// What `fill` appends is the whole file from now on: written aside, synced and renamed. An error leaves the file of
// before, and names the step.
[[nodiscard]] Result<void> replace_file(const std::string& path,
                                        const std::function<Result<void>(const AppendText&)>& fill);
// None is no error.
[[nodiscard]] Result<void> remove_file(const std::string& path);

}  // namespace sockbroker
