// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reading whole files with a bound, and the rule of drop-in directories: of several files with one name only the first
// is looked at. Shared by policies, the broker's own limits and the copy of the policy.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"
#include "broker/policy/files.h"

namespace sockbroker {

// A million bindings with some comment each are about 100 MB.
inline constexpr std::size_t kMaxFileBytes = std::size_t{256} << 20;

// A regular file, to the byte. ENOENT where there is none, which a link to nowhere is not; /dev/null reads as empty.
[[nodiscard]] Result<std::string> read_whole_file(const std::string& path, std::size_t limit = kMaxFileBytes);

// Of a path that does not exist: the part of it that is a link whose target is not there; empty: it has none.
[[nodiscard]] std::string link_to_nowhere(const std::string& path);

// What is said of those that the reader may not read.
[[nodiscard]] Error no_access_to_file();
[[nodiscard]] Error no_access_to_directory();

[[nodiscard]] bool is_drop_in_name(std::string_view name);

// Called with each file and directory before it is read: the file system may be long in answering.
using Touch = std::function<void(const std::string& path)>;

// `subdirectory`/*.conf of each directory, as read_policy_files() says.
[[nodiscard]] FoundFiles read_drop_ins(const std::vector<std::string>& config_dirs, const std::string& subdirectory,
                                       const Touch& touch = {});

}  // namespace sockbroker
