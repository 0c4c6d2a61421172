// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace sockbroker {

void open_standard_streams() {
        for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
                if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
                        // The lowest free number is this one. Each in the wrong direction.
                        (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
                }
        }
}

void print_to_stderr(std::string_view text) noexcept {
        (void)std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace sockbroker
