// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/sandbox/trial.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <thread>

namespace sockbroker {

namespace {

using Program = sandbox::Filter::Program;

bool returns(const sock_filter& instruction) {
        return BPF_CLASS(instruction.code) == BPF_RET;
}

// One program, since one process may have one listener: what a program allows goes on to the next, and what any of them
// refuses is for the listener.
Program merged(const sandbox::Filter& filter) {
        Program whole;
        for (auto program = filter.programs.rbegin(); program != filter.programs.rend(); ++program) {
                const bool last = std::next(program) == filter.programs.rend();
                for (std::size_t i = 0; i < program->size(); i++) {
                        sock_filter instruction = (*program)[i];
                        if (returns(instruction) && instruction.k != SECCOMP_RET_ALLOW) {
                                instruction.k = SECCOMP_RET_USER_NOTIF;
                        } else if (returns(instruction) && !last) {
                                instruction = {BPF_JMP | BPF_JA, 0, 0,
                                               static_cast<std::uint32_t>(program->size() - i - 1)};
                        }
                        whole.push_back(instruction);
                }
        }
        return whole;
}

void tell(const seccomp_notif& call) {
        char* const name = seccomp_syscall_resolve_num_arch(call.data.arch, call.data.nr);
        const auto* a = call.data.args;
        dprintf(STDERR_FILENO, "sandbox trial: %s %llx %llx %llx %llx\n", name == nullptr ? "?" : name, a[0], a[1],
                a[2], a[3]);
        std::free(name);
}

// Has no filter: it was made before.
void listen_to(int listener) {
        while (true) {
                seccomp_notif call{};
                if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
                        if (errno == EINTR || errno == ENOENT) {
                                continue;
                        }
                        return;
                }
                seccomp_notif_resp response{};
                response.id = call.id;
                if (call.data.nr == SYS_clone3) {
                        response.error = -ENOSYS;  // refused on purpose at each thread, and libc then takes clone
                } else {
                        tell(call);
                        response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
                }
                (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
        }
}

}  // namespace

Result<void> install_for_trial(const sandbox::Filter& filter) {
        Program whole = merged(filter);
        auto listener = std::make_shared<std::promise<int>>();
        std::thread([listener] { listen_to(listener->get_future().get()); }).detach();
        const sock_fprog program{static_cast<unsigned short>(whole.size()), whole.data()};
        const auto fd = static_cast<int>(
                syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
        if (fd < 0) {
                return fail_errno("cannot install the filter for a trial");
        }
        listener->set_value(fd);
        (void)getpriority(PRIO_PROCESS, 0);
        return {};
}

}  // namespace sockbroker
