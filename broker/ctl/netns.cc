// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See netns.h.
#include "broker/ctl/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"
#include "broker/ctl/route.h"

namespace sockbroker::ctl {

namespace {

bool enter_netns_at(const std::string& path) {
        const OwnedFd netns(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        struct stat own {};
        struct stat named {};
        if (!netns || fstat(netns.get(), &named) != 0) {
                return false;
        }
        const bool there = stat("/proc/self/ns/net", &own) == 0 && own.st_ino == named.st_ino;
        return there || setns(netns.get(), CLONE_NEWNET) == 0;
}

}  // namespace

bool enter_netns(const std::string& name) {
        return enter_netns_at("/run/netns/" + name);
}

bool enter_netns_of_broker(const std::string& name, std::string_view cookie) {
        const auto is_here = [&] {
                const auto here = netns_cookie_here();
                return here && cookie == fmt::format("{:x}", *here);
        };
        return is_here() || (enter_netns_at(name.empty() ? "/proc/1/ns/net" : "/run/netns/" + name) && is_here());
}

}  // namespace sockbroker::ctl
