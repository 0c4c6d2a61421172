// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a broker reads once it has confined itself. `verify` reads policies within the same bounds, so that it names the
// files that lie beyond them.
#pragma once

#include <string>
#include <vector>

namespace sockbroker {

// Directories, with all that lies below. Links lead to where they point: one beyond these directories cannot be
// followed.
[[nodiscard]] std::vector<std::string> readable_paths(const std::vector<std::string>& config_dirs);

}  // namespace sockbroker
