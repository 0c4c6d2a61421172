// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/merged_folders.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "broker/base/owned_fd.h"

namespace sockbroker {

MergedFolders::MergedFolders(const std::vector<std::string>& paths) {
        for (std::filesystem::path path : paths) {
                struct stat status {};
                while (stat(path.c_str(), &status) != 0 && path.has_relative_path()) {
                        path = path.parent_path();
                }
                folders_.push_back({path.string(), status.st_dev, status.st_ino});
        }
}

std::vector<std::string> MergedFolders::out_of_reach() const {
        std::vector<std::string> result;
        for (const auto& [path, device, inode] : folders_) {
                struct stat status {};
                if (stat(path.c_str(), &status) != 0 || (status.st_dev == device && status.st_ino == inode)) {
                        continue;
                }
                const OwnedFd opened(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
                if (!opened && errno == EACCES) {
                        result.push_back(path);
                }
        }
        return result;
}

}  // namespace sockbroker
