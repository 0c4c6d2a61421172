// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/peer/proc.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <systemd/sd-login.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "broker/base/owned_fd.h"

namespace sockbroker {

std::optional<std::string> read_small(int directory, const char* path) {
        const OwnedFd fd(openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY));
        if (!fd) {
                return std::nullopt;
        }
        std::string text(16384, '\0');
        std::size_t used = 0;
        while (used < text.size()) {
                const ssize_t got = read(fd.get(), text.data() + used, text.size() - used);
                if (got < 0 && errno == EINTR) {
                        continue;
                }
                if (got < 0) {
                        return std::nullopt;
                }
                if (got == 0) {
                        break;
                }
                used += static_cast<std::size_t>(got);
        }
        text.resize(used);
        return text;
}

std::string_view word(std::string_view text, unsigned index) {
        for (;;) {
                const auto start = text.find_first_not_of(" \t");
                if (start == std::string_view::npos) {
                        return {};
                }
                text.remove_prefix(start);
                const auto end = std::min(text.find_first_of(" \t\n"), text.size());
                if (index-- == 0) {
                        return text.substr(0, end);
                }
                text.remove_prefix(end);
        }
}

std::expected<std::string, int> look_up_unit(pid_t pid) {
        char* raw = nullptr;
        if (const int r = sd_pid_get_unit(pid, &raw); r < 0) {
                return std::unexpected(-r);
        }
        const std::unique_ptr<char, decltype(&std::free)> unit(raw, &std::free);
        return unit.get();
}

std::string unit_of(pid_t pid) {
        return look_up_unit(pid).value_or("");
}

bool still_there(int pidfd) {
        return syscall(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0) == 0 || errno == EPERM;
}

}  // namespace sockbroker
