// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/file_lock.h"

#include <sys/file.h>

#include <cerrno>
#include <thread>

namespace sockbroker {

Result<void> lock_file(int fd, std::chrono::milliseconds patience) {
        constexpr auto kPoll = std::chrono::milliseconds(10);
        const auto end = std::chrono::steady_clock::now() + patience;
        while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
                if (errno != EWOULDBLOCK || std::chrono::steady_clock::now() >= end) {
                        return fail_errno("flock");
                }
                std::this_thread::sleep_for(kPoll);
        }
        return {};
}

}  // namespace sockbroker
