// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A forked child that runs one function and ends. It is always reaped, at the latest by the destructor.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace sockbroker::test {

class Child {
public:
        // What `body` returns is the exit status.
        explicit Child(const std::function<int()>& body) : pid_(fork()) {
                if (pid_ == 0) {
                        _exit(body());
                }
        }
        explicit Child(pid_t pid) : pid_(pid) {}  // made by other means
        Child(const Child&) = delete;
        Child& operator=(const Child&) = delete;
        ~Child() {
                if (pid_ > 0) {
                        kill(pid_, SIGKILL);
                        (void)wait();
                }
        }

        [[nodiscard]] pid_t pid() const { return pid_; }

        // Waits for its end and reaps it; the exit status, -1 for a signal.
        int wait() {
                int status = -1;
                waitpid(pid_, &status, 0);
                pid_ = -1;
                return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }

private:
        pid_t pid_ = -1;
};

}  // namespace sockbroker::test
