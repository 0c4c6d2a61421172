// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Landlock's rules are of the directories that were there at the start. A merge of systemd-sysext(8) or
// systemd-confext(8), or any other mount over one of them, puts another directory in its place, which stays out of
// reach until the next start.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace sockbroker {

class MergedFolders {
public:
        explicit MergedFolders(const std::vector<std::string>& paths);  // what they are now, or the nearest above them

        // Those in whose place another directory is now that this process may not read.
        [[nodiscard]] std::vector<std::string> out_of_reach() const;

private:
        struct Folder {
                std::string path;
                dev_t device = 0;
                ino_t inode = 0;
        };
        std::vector<Folder> folders_;
};

}  // namespace sockbroker
