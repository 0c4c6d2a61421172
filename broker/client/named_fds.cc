// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See named_fds.h.
#include "broker/client/named_fds.h"

#include <fcntl.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sockbroker {

Result<std::vector<NamedFd>> take_passed() {
        char** names = nullptr;
        const int number = ::sd_listen_fds_with_names(1, &names);
        if (number < 0) {
                return fail(number, "cannot take the sockets that were passed (LISTEN_FDS, LISTEN_FDNAMES)");
        }
        std::vector<NamedFd> passed;
        for (int i = 0; i < number; ++i) {
                passed.push_back({OwnedFd(SD_LISTEN_FDS_START + i), names[i]});
                std::free(names[i]);
        }
        std::free(static_cast<void*>(names));
        return passed;
}

Result<void> pass_on(std::vector<NamedFd>& sockets, int keep) {
        const int first = SD_LISTEN_FDS_START;
        const int end = first + static_cast<int>(sockets.size());
        // First out of the way of each other.
        for (NamedFd& socket : sockets) {
                const int moved = ::fcntl(socket.fd.get(), F_DUPFD_CLOEXEC, end);
                if (moved < 0) {
                        return fail_errno("cannot arrange the sockets for the program (LimitNOFILE=?)");
                }
                socket.fd.reset(moved);
        }
        std::vector<std::string> names;
        for (std::size_t i = 0; i < sockets.size(); ++i) {
                if (::dup2(sockets[i].fd.get(), first + static_cast<int>(i)) < 0) {
                        return fail_errno("cannot arrange the sockets for the program");
                }
                names.push_back(sockets[i].name.empty() ? "unknown" : sockets[i].name);
                (void)sockets[i].fd.release();  // closed below, with all others
        }
        const auto beyond = static_cast<unsigned>(keep < end ? end : keep + 1);
        if ((keep > end && ::close_range(static_cast<unsigned>(end), static_cast<unsigned>(keep) - 1, 0) < 0) ||
            ::close_range(beyond, ~0U, 0) < 0) {
                return fail_errno("cannot close what the program is not to have");
        }
        // Of libsystemd 259 and newer, beside LISTEN_PID: whose it is nobody here has looked at, and LISTEN_PID
        // suffices.
        ::unsetenv("LISTEN_PIDFDID");
        if (sockets.empty()) {
                // Of others, and not for the program.
                ::unsetenv("LISTEN_PID");
                ::unsetenv("LISTEN_FDS");
                ::unsetenv("LISTEN_FDNAMES");
                return {};
        }
        const bool set = ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1) == 0 &&
                         ::setenv("LISTEN_FDS", std::to_string(sockets.size()).c_str(), 1) == 0 &&
                         ::setenv("LISTEN_FDNAMES", fmt::format("{}", fmt::join(names, ":")).c_str(), 1) == 0;
        if (!set) {
                return fail_errno("cannot set LISTEN_FDS for the program");
        }
        return {};
}

}  // namespace sockbroker
