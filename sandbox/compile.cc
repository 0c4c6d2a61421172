// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See compile.h.
#include "sandbox/compile.h"

#include <fmt/format.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <memory>

#include "sandbox/arguments.h"

namespace sockbroker::sandbox {

namespace {

std::uint32_t code(const Action& action, Denial denial) {
        if (denial == Denial::kLogOnly && action.kind != ActionKind::kAllow) {
                return SCMP_ACT_LOG;
        }
        switch (action.kind) {
        case ActionKind::kAllow:
                return SCMP_ACT_ALLOW;
        case ActionKind::kLog:
                return SCMP_ACT_LOG;
        case ActionKind::kErrno:
                return SCMP_ACT_ERRNO(static_cast<std::uint32_t>(action.errnum));
        case ActionKind::kKill:
                break;
        }
        return SCMP_ACT_KILL_PROCESS;
}

struct Release {
        void operator()(void* context) const { ::seccomp_release(context); }
};
using Context = std::unique_ptr<void, Release>;

Result<Filter::Program> exported(const Context& context) {
        const OwnedFd fd(::memfd_create("seccomp", MFD_CLOEXEC));
        if (!fd) {
                return fail_errno("cannot make a memfd for a seccomp filter");
        }
        if (const int r = ::seccomp_export_bpf(context.get(), fd.get()); r < 0) {
                return fail(r, "cannot export a seccomp filter");
        }
        struct stat status {};
        if (::fstat(fd.get(), &status) < 0) {
                return fail_errno("cannot tell the size of a seccomp filter");
        }
        Filter::Program program(static_cast<std::size_t>(status.st_size) / sizeof(sock_filter));
        if (::pread(fd.get(), program.data(), program.size() * sizeof(sock_filter), 0) != status.st_size) {
                return fail_errno("cannot read a seccomp filter back");
        }
        return program;
}

Result<Filter::Program> names_program(const Profile& profile, Denial denial) {
        // First of all: without, the library asks the kernel by seccomp(2), which may be fatal in a unit with a filter
        // of its own. 5: Linux 5.0.
        constexpr unsigned kApiLevel = 5;
        constexpr std::uint32_t kBinaryTree = 2;
        const std::uint32_t fallback = code(profile.unnamed, denial);
        int r = ::seccomp_api_set(kApiLevel);
        const Context context(r >= 0 ? ::seccomp_init(fallback) : nullptr);
        if (context == nullptr) {
                return fail(r < 0 ? r : ENOMEM, "cannot make a seccomp filter");
        }
        if (r >= 0) {
                r = ::seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, code(profile.foreign, denial));
        }
        if (r >= 0) {
                r = ::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, kBinaryTree);
        }
        if (r < 0) {
                return fail(r, "cannot set a seccomp filter up");
        }
        for (const auto& [call, rule] : profile.rules) {
                const std::uint32_t action = code(rule.action, denial);
                const int number = ::seccomp_syscall_resolve_name(call.c_str());
                if (number < 0 || action == fallback) {
                        continue;
                }
                if (r = ::seccomp_rule_add_array(context.get(), action, number, 0, nullptr); r < 0) {
                        return fail(r, fmt::format("cannot make a seccomp rule for {}", call));
                }
        }
        return exported(context);
}

// The kernel only reads it.
sock_fprog for_kernel(const Filter::Program& program) {
        return {static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
}

}  // namespace

Result<void> Filter::install() const {
        for (const Program& program : programs) {
                const sock_fprog wanted = for_kernel(program);
                const long r = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &wanted);
                if (r < 0) {
                        return fail_errno("cannot install a seccomp filter (no_new_privs is needed)");
                }
                if (r > 0) {
                        return fail(ESRCH,
                                    fmt::format("cannot install a seccomp filter: thread {} has another one", r));
                }
        }
        return {};
}

Result<void> Filter::install_in_this_thread() const {
        for (const Program& program : programs) {
                const sock_fprog wanted = for_kernel(program);
                if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &wanted, 0, 0) < 0) {
                        return fail_errno("cannot install a seccomp filter (no_new_privs is needed)");
                }
        }
        return {};
}

Result<Filter> compile(const Profile& profile, Denial denial) {
        const auto names = names_program(profile, denial);
        if (!names) {
                return std::unexpected(names.error());
        }
        Filter::Program program = arguments_program(profile, code(profile.arguments, denial));
        program.insert(program.end(), names->begin(), names->end());
        if (names->empty() || program.size() > BPF_MAXINSNS) {
                return fail(
                        fmt::format("profile {} makes a filter of {} instructions, the kernel takes up to {}: fewer "
                                    "conditions are needed",
                                    profile.name, program.size(), BPF_MAXINSNS));
        }
        Filter filter;
        filter.programs.push_back(std::move(program));
        return filter;
}

Result<OwnedFd> to_memfd(const Filter::Program& program) {
        OwnedFd fd(::memfd_create("seccomp", MFD_CLOEXEC));
        const std::size_t size = program.size() * sizeof(sock_filter);
        if (!fd || ::write(fd.get(), program.data(), size) != static_cast<ssize_t>(size)) {
                return fail_errno("cannot write a seccomp filter to a memfd");
        }
        return fd;
}

}  // namespace sockbroker::sandbox
