// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How many descriptors this process has open: the measure of every leak test.
#pragma once

#include <dirent.h>

#include <cstddef>
#include <memory>

namespace sockbroker::test {

inline std::size_t open_fds() {
        const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc/self/fd"), &closedir);
        std::size_t count = 0;
        while (readdir(directory.get()) != nullptr) {
                count++;
        }
        return count - 3;  // ".", ".." and the directory itself
}

}  // namespace sockbroker::test
