// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/user_namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "broker/base/owned_fd.h"

namespace sockbroker::supervise {

namespace {

Result<void> write_file(const char* path, const std::string& text) {
        const OwnedFd fd(::open(path, O_WRONLY | O_CLOEXEC));
        if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
                return fail_errno(fmt::format("cannot write {} of the program's user namespace", path));
        }
        return {};
}

}  // namespace

Result<void> enter_user_namespace() {
        const uid_t uid = ::geteuid();
        const gid_t gid = ::getegid();
        if (::unshare(CLONE_NEWUSER) != 0) {
                return fail_errno("cannot make a user namespace for the program");
        }
        auto done = write_file("/proc/self/setgroups", "deny");  // user_namespaces(7): before gid_map
        if (done) {
                done = write_file("/proc/self/uid_map", fmt::format("{} {} 1", uid, uid));
        }
        if (done) {
                done = write_file("/proc/self/gid_map", fmt::format("{} {} 1", gid, gid));
        }
        return done;
}

int ptrace_scope() {
        int scope = 0;
        std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> scope;
        return scope;
}

}  // namespace sockbroker::supervise
