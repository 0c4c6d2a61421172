// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Finds the files of a profile and parses them. Directories are searched in order; a file in an earlier one masks one
// of the same name in a later one, and an empty file (or a link to /dev/null) as drop-in is none.
#pragma once

#include <string>
#include <vector>

#include "sandbox/parse.h"

namespace sockbroker::sandbox {

// /etc, /run, /usr/local/lib, /usr/lib, each with /sockbroker/sandbox.
[[nodiscard]] const std::vector<std::string>& profile_folders();

// `wanted` is a name: DIRECTORY/NAME.profile of the first directory that has it, then the drop-ins
// DIRECTORY/NAME.profile.d/*.profile of all directories in the order of their names. Or it is a path, with a slash in
// it: that file and no drop-ins. `additions` come last.
[[nodiscard]] ParsedProfile load_profile(const std::string& wanted, const std::vector<std::string>& folders,
                                         const std::vector<ProfileFile>& additions = {});

}  // namespace sockbroker::sandbox
