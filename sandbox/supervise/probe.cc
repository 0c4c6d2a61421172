// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/probe.h"

#include <fmt/format.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>

#include "broker/base/owned_fd.h"

namespace sockbroker::supervise {

namespace {

struct Outcome {
        std::uint8_t call = 0;
        std::uint8_t errnum = 0;
        bool done = false;  // written twice: before the call and after it
};

constexpr std::array<const char*, 4> kCalls = {"seccomp", "pidfd_open", "pidfd_getfd", "process_vm_readv"};

long make(std::uint8_t call) {
        static int pidfd = -1;
        std::uint32_t action = SECCOMP_RET_USER_NOTIF;
        switch (call) {
        case 0:
                return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
        case 1:
                return pidfd = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
        case 2:
                return ::syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
        default:
                const iovec local{.iov_base = &action, .iov_len = sizeof action};
                std::uint32_t there = 0;
                const iovec remote{.iov_base = &there, .iov_len = sizeof there};
                return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0);
        }
}

[[noreturn]] void try_all(int pipe) {
        const rlimit none{};
        ::setrlimit(RLIMIT_CORE, &none);
        for (std::size_t i = 0; i < kCalls.size(); i++) {
                const auto call = static_cast<std::uint8_t>(i);
                Outcome outcome{.call = call};
                bool written = ::write(pipe, &outcome, sizeof outcome) == sizeof outcome;
                outcome.errnum = static_cast<std::uint8_t>(make(call) < 0 ? errno : 0);
                outcome.done = true;
                written = ::write(pipe, &outcome, sizeof outcome) == sizeof outcome && written;
                if (!written) {
                        break;
                }
        }
        ::_exit(0);
}

std::unexpected<Error> forbidden(const Outcome& outcome, bool killed) {
        const char* name = kCalls.at(outcome.call);
        if (outcome.errnum == ENOSYS || outcome.errnum == EOPNOTSUPP || outcome.errnum == EINVAL) {
                return fail(outcome.errnum, fmt::format("--supervise needs {}(2) with what Linux 5.14 has of it, which "
                                                        "the kernel lacks or a filter hides (SystemCallFilter=, a "
                                                        "container's)",
                                                        name));
        }
        return fail(
                outcome.errnum,
                fmt::format("--supervise needs {}(2), {} by the unit's SystemCallFilter= (or a container's filter): "
                            "add the line SystemCallFilter=seccomp pidfd_getfd to the unit",
                            name, killed ? "for which it is killed" : "which is refused"));
}

}  // namespace

Result<void> probe_calls() {
        std::array<int, 2> ends{};
        if (::pipe(ends.data()) != 0) {
                return fail_errno("cannot make a pipe");
        }
        OwnedFd read_end(ends[0]);
        OwnedFd write_end(ends[1]);
        const pid_t child = ::fork();
        if (child < 0) {
                return fail_errno("cannot start a process (TasksMax=, LimitNPROC=)");
        }
        if (child == 0) {
                try_all(write_end.get());
        }
        write_end.reset();
        Outcome last;
        Outcome outcome;
        std::optional<Outcome> refused;
        while (::read(read_end.get(), &outcome, sizeof outcome) == sizeof outcome) {
                last = outcome;
                if (outcome.done && outcome.errnum != 0 && !refused) {
                        refused = outcome;
                }
        }
        int status = 0;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        if (refused) {
                return forbidden(*refused, false);
        }
        if (!last.done) {
                return forbidden(last, true);
        }
        return {};
}

}  // namespace sockbroker::supervise
