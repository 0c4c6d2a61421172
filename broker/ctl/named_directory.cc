// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/named_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include <fmt/format.h>

namespace sockbroker::ctl {

namespace {

std::string not_readable(const std::string& dir, std::string_view option) {
        if (::access(dir.c_str(), R_OK | X_OK) == 0) {
                return {};
        }
        return fmt::format("cannot read the directory {} given by {}: {}", dir, option, std::strerror(errno));
}

}  // namespace

std::string slip_of_named(const Options& options) {
        if (std::string slip = options.root.empty() ? "" : not_readable(options.root, "--root"); !slip.empty()) {
                return slip;
        }
        if (options.config_dir.empty()) {
                return {};
        }
        const std::string dir = options.root + options.config_dir;
        struct stat status {};
        if (::stat(dir.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
                return fmt::format("--config-dir={} is not a directory: give the one whose conf.d holds the file", dir);
        }
        if (std::string slip = not_readable(dir, "--config-dir"); !slip.empty()) {
                return slip;
        }
        const bool whole = ::access((dir + "/conf.d").c_str(), F_OK) == 0;
        const std::string_view name = std::string_view(dir).substr(0, dir.find_last_not_of('/') + 1);
        if (!whole && (name == "conf.d" || name.ends_with("/conf.d"))) {
                return fmt::format("--config-dir={} has no conf.d in it: give the directory above it", dir);
        }
        return {};
}

}  // namespace sockbroker::ctl
