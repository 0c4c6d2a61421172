// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/readable_paths.h"

#include <filesystem>

namespace sockbroker {

namespace {

// A directory of policies may be made later: a rule needs what is there, so it is the nearest one above.
std::string nearest(std::filesystem::path path) {
        std::error_code ignored;
        while (path.has_relative_path() && !std::filesystem::exists(path, ignored)) {
                path = path.parent_path();
        }
        return path.has_relative_path() ? path.string() : std::string{};
}

}  // namespace

std::vector<std::string> readable_paths(const std::vector<std::string>& config_dirs) {
        // Policies may be links into these.
        std::vector<std::string> paths{"/etc", "/usr/lib", "/usr/local/lib"};
        // The cgroup of a registrant, the overflow uid, the boot id.
        paths.emplace_back("/proc");
        paths.emplace_back("/sys/devices/system/cpu");
        paths.emplace_back("/dev/null");
        for (const std::string& dir : config_dirs) {
                if (auto existing = nearest(dir); !existing.empty()) {
                        paths.push_back(std::move(existing));
                }
        }
        return paths;
}

}  // namespace sockbroker
