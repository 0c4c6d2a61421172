// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/notification.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>
#include <cstring>

namespace sockbroker::supervise {

namespace {

// linux/seccomp.h of kernel 5.19.
constexpr unsigned long kWaitKillableRecv = 1UL << 5;

// A notification that was withdrawn between poll(2) and RECV may leave RECV waiting; SIGALRM has a handler that does
// nothing.
constexpr suseconds_t kPatienceUsec = 50'000;

void set_alarm(suseconds_t usec) {
        // Again and again: the first may come before RECV has begun to wait.
        const timeval time{.tv_sec = 0, .tv_usec = usec};
        const itimerval timer{.it_interval = time, .it_value = time};
        ::setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

Result<OwnedFd> install_with_listener(const sandbox::Filter::Program& program) {
        const sock_fprog filter{.len = static_cast<unsigned short>(program.size()),
                                .filter = const_cast<sock_filter*>(program.data())};  // the kernel reads only
        // Signals do not interrupt a call that the supervisor works on; kernels before 5.19 lack it.
        for (const unsigned long flags :
             {SECCOMP_FILTER_FLAG_NEW_LISTENER | kWaitKillableRecv, SECCOMP_FILTER_FLAG_NEW_LISTENER}) {
                const long fd = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
                if (fd >= 0) {
                        return OwnedFd(static_cast<int>(fd));
                }
                if (errno != EINVAL) {
                        break;
                }
        }
        return fail_errno("cannot install the filter that hands bind(2) to the supervisor");
}

Result<Notifications> Notifications::of(OwnedFd listener) {
        seccomp_notif_sizes sizes{};
        if (::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) {
                return fail_errno("cannot ask for the sizes of notifications");
        }
        // Runs the supervisor on the program's processor at once, which halves the time of a bind (6.6).
        constexpr unsigned long kSetFlags = 0x40082104;  // SECCOMP_IOCTL_NOTIF_SET_FLAGS
        (void)::ioctl(listener.get(), kSetFlags, 1UL);   // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
        Notifications made(std::move(listener));
        made.request_size_ = std::max<std::size_t>(sizes.seccomp_notif, sizeof(seccomp_notif));
        made.response_size_ = std::max<std::size_t>(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp));
        made.request_ = std::make_unique<char[]>(made.request_size_);
        made.response_ = std::make_unique<char[]>(made.response_size_);
        return made;
}

std::optional<seccomp_notif> Notifications::receive() {
        std::memset(request_.get(), 0, request_size_);  // the kernel insists
        set_alarm(kPatienceUsec);
        const int result = ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, request_.get());
        set_alarm(0);
        if (result != 0) {
                return std::nullopt;
        }
        seccomp_notif request;
        std::memcpy(&request, request_.get(), sizeof request);
        return request;
}

bool Notifications::is_valid(std::uint64_t id) const {
        return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

void Notifications::send(const seccomp_notif_resp& response) {
        std::memset(response_.get(), 0, response_size_);
        std::memcpy(response_.get(), &response, sizeof response);
        // ENOENT: the thread was killed meanwhile. There is nobody to tell.
        (void)::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, response_.get());
}

void Notifications::answer(std::uint64_t id, int errnum) {
        send({.id = id, .val = 0, .error = -errnum, .flags = 0});
}

void Notifications::let_go_on(std::uint64_t id) {
        send({.id = id, .val = 0, .error = 0, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
}

Result<void> Notifications::replace(std::uint64_t id, int number, int fd, bool close_on_exec) {
        const seccomp_notif_addfd added{.id = id,
                                        .flags = SECCOMP_ADDFD_FLAG_SETFD,
                                        .srcfd = static_cast<__u32>(fd),
                                        .newfd = static_cast<__u32>(number),
                                        .newfd_flags = close_on_exec ? static_cast<__u32>(O_CLOEXEC) : 0U};
        if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &added) < 0) {
                return fail_errno("cannot put a socket in the place of the program's");
        }
        return {};
}

}  // namespace sockbroker::supervise
