// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See confine.h.
#include "sandbox/run/confine.h"

#include <linux/securebits.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "broker/base/owned_fd.h"

namespace sockbroker::launcher {

namespace {

using Capabilities = std::unique_ptr<void, int (*)(void*)>;

Capabilities own(cap_t capabilities) {
        return {capabilities, ::cap_free};
}

// EPERM where the process has no CAP_SETPCAP: then no_new_privs alone keeps capabilities from being gained.
bool done_or_not_allowed(int result) {
        return result == 0 || errno == EPERM;
}

Result<void> drop_bounding_set() {
        for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
                if (!done_or_not_allowed(::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))) {
                        return fail_errno("cannot drop a capability from the bounding set");
                }
        }
        return {};
}

Result<bool> any_left() {
        const Capabilities now = own(::cap_get_proc());
        const Capabilities none = own(::cap_init());
        if (!now || !none) {
                return fail_errno("cannot read the capabilities left");
        }
        return ::cap_compare(static_cast<cap_t>(now.get()), static_cast<cap_t>(none.get())) != 0;
}

// In a child, since a filter may kill for such a call. Its word comes through a pipe: where SIGCHLD is ignored there is
// no status to wait for.
Result<bool> may_enter(TcpBind tcp_bind) {
        std::array<int, 2> ends{};
        if (::pipe(ends.data()) != 0) {
                return fail_errno("cannot make a pipe");
        }
        const OwnedFd read_end(ends[0]);
        OwnedFd write_end(ends[1]);
        const pid_t child = ::fork();
        if (child < 0) {
                return fail_errno("cannot start a process (TasksMax=, LimitNPROC=)");
        }
        char word = 0;
        if (child == 0) {
                const rlimit none{};
                ::setrlimit(RLIMIT_CORE, &none);
                const bool entered = enter_domain(tcp_bind).has_value();
                ::_exit(entered && ::write(write_end.get(), &word, sizeof word) == sizeof word ? 0 : 1);
        }
        write_end.reset();
        const bool entered = ::read(read_end.get(), &word, sizeof word) == sizeof word;
        while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
        }
        return entered;
}

// The program could go back to what is left of another user, for which it needs no capability. execve(2) has made the
// saved number the effective one.
Result<void> be_one_user() {
        if ((::getgid() != ::getegid() && ::setresgid(::getegid(), ::getegid(), ::getegid()) < 0) ||
            (::getuid() != ::geteuid() && ::setresuid(::geteuid(), ::geteuid(), ::geteuid()) < 0)) {
                return fail_errno("cannot give up the real user and group beside the effective ones");
        }
        return {};
}

}  // namespace

Result<void> give_up_privileges() {
        constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                        SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                        SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
        if (auto one = be_one_user(); !one) {
                return one;
        }
        if (!done_or_not_allowed(::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0))) {
                return fail_errno("cannot set securebits");
        }
        if (auto dropped = drop_bounding_set(); !dropped) {
                return dropped;
        }
        if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
                return fail_errno("cannot clear the ambient capabilities");
        }
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
                return fail_errno("cannot set no_new_privs");
        }
        auto left = any_left();
        if (left && *left) {
                // Only where there are some: a unit's SystemCallFilter=~@privileged may forbid it.
                const Capabilities none = own(::cap_init());
                if (!none || ::cap_set_proc(static_cast<cap_t>(none.get())) < 0) {
                        return fail_errno("cannot give the capabilities up");
                }
                left = any_left();
        }
        if (!left) {
                return std::unexpected(left.error());
        }
        if (*left || ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
                return fail("capabilities are left, or may be gained again, after all were given up");
        }
        return {};
}

Result<void> shut_in(TcpBind tcp_bind) {
        if (::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0) {
                const auto may = may_enter(tcp_bind);
                if (!may || !*may) {
                        return may ? Result<void>{} : std::unexpected(may.error());
                }
        }
        return enter_domain(tcp_bind);
}

}  // namespace sockbroker::launcher
