// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where a path of the program leads, link by link: "self" in it is the program, and would be the supervisor if the
// kernel followed it here.
#pragma once

#include <string>
#include <string_view>

#include "broker/base/owned_fd.h"
#include "sandbox/supervise/target.h"

namespace sockbroker::supervise {

struct Way {
        bool through_self = false;  // through /proc/self or /proc/thread-self, /dev/fd among them
        int errnum = 0;             // it ends before the last component
        std::string why;            // for people, of EACCES that no kernel would give
        OwnedFd folder;             // of the last component
        std::string name;           // the last component, which is not followed
};

// `root`, `directory`: the program's.
[[nodiscard]] Way follow(std::string_view path, const Target& target, int root, int directory);

}  // namespace sockbroker::supervise
