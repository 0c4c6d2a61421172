// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/unix_bind.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace sockbroker::supervise {

bool names_file(std::span<const std::byte> address) {
        constexpr std::size_t kPath = offsetof(sockaddr_un, sun_path);
        return address.size() > kPath && address[kPath] != std::byte{0};
}

// The supervisor has one thread, so its working directory and umask are its own to change.
int bind_unix(int fd, const SocketAddress& address, const Target& target) {
        const auto mask = target.umask();
        const auto directory = target.working_directory();
        if (!mask || !directory || !target.shares_root()) {
                return EACCES;
        }
        if (::fchdir(directory->get()) != 0) {
                return errno;
        }
        const mode_t own = ::umask(*mask);
        const int result = ::bind(fd, address.get(), address.size);
        const int errnum = errno;
        ::umask(own);
        if (::chdir("/") != 0) {
                return errno;
        }
        return result == 0 ? 0 : errnum;
}

}  // namespace sockbroker::supervise
