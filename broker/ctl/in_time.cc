// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/in_time.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <exception>

#include "broker/base/owned_fd.h"

namespace sockbroker::ctl {

namespace {

// False: the time is up.
bool wait_for_more(int fd, Deadline deadline) {
        while (true) {
                const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Deadline::clock::now());
                pollfd readable{.fd = fd, .events = POLLIN, .revents = 0};
                const auto most = std::clamp<std::chrono::milliseconds::rep>(left.count(), 0, 60'000);
                const int ready = ::poll(&readable, 1, static_cast<int>(most));
                if (ready > 0 || (ready < 0 && errno != EINTR)) {
                        return ready > 0;
                }
                if (Deadline::clock::now() >= deadline) {
                        return false;
                }
        }
}

// A child that hangs in the kernel outlives a SIGKILL: whoever waits for the end of this tool's output, or has given it
// a lock, must not wait for that one. Whether it succeeded.
bool let_go_of_all_but(int pipe) {
        const OwnedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
                if (!null || ::dup2(null.get(), standard) < 0) {
                        return false;
                }
        }
        const auto kept = static_cast<unsigned>(pipe);
        const unsigned first = STDERR_FILENO + 1;
        return (kept == first || ::close_range(first, kept - 1, 0) == 0) && ::close_range(kept + 1, ~0U, 0) == 0;
}

}  // namespace

Deadline deadline_after(Deadline start, std::chrono::microseconds span) {
        return span > std::chrono::hours(24 * 365) ? Deadline::max() : start + span;
}

Result<std::string> told_until(Deadline deadline, const std::function<void(int pipe)>& tell) {
        int fds[2];
        if (::pipe2(fds, O_CLOEXEC) != 0) {
                return fail_errno("cannot make a pipe");
        }
        const OwnedFd ours(fds[0]);
        OwnedFd theirs(fds[1]);
        const pid_t child = ::fork();
        if (child < 0) {
                return fail_errno("cannot start a process for what may take long");
        }
        if (child == 0) {
                if (!let_go_of_all_but(theirs.get())) {
                        ::_exit(EXIT_FAILURE);
                }
                try {
                        tell(theirs.get());
                } catch (const std::exception&) {
                        ::_exit(EXIT_FAILURE);  // what was told is known
                }
                ::_exit(EXIT_SUCCESS);
        }
        theirs.reset();
        std::string text;
        char buffer[65536];
        while (wait_for_more(ours.get(), deadline)) {
                const ssize_t got = ::read(ours.get(), buffer, sizeof buffer);
                if (got == 0) {
                        break;
                }
                if (got < 0 && errno != EINTR) {
                        break;
                }
                text.append(buffer, got > 0 ? static_cast<std::size_t>(got) : 0);
        }
        (void)::kill(child, SIGKILL);  // it is ours until it is waited for
        (void)::waitpid(child, nullptr, WNOHANG);
        return text;
}

void write_record(int pipe, const std::string& record) {
        while (::write(pipe, record.data(), record.size()) < 0 && errno == EINTR) {
        }
}

}  // namespace sockbroker::ctl
