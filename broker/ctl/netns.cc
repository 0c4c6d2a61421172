// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See netns.h.
#include "broker/ctl/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include "broker/base/owned_fd.h"

namespace sockbroker::ctl {

bool enter_netns(const std::string& name) {
        const OwnedFd netns(open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC));
        struct stat own {};
        struct stat named {};
        if (!netns || fstat(netns.get(), &named) != 0) {
                return false;
        }
        const bool there = stat("/proc/self/ns/net", &own) == 0 && own.st_ino == named.st_ino;
        return there || setns(netns.get(), CLONE_NEWNET) == 0;
}

}  // namespace sockbroker::ctl
