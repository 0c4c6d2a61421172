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
                return fail_errno("cannot start a process that asks this host's directory");
        }
        if (child == 0) {
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
