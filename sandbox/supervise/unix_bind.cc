// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/unix_bind.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "sandbox/supervise/log.h"
#include "sandbox/supervise/unix_path.h"

namespace sockbroker::supervise {

namespace {

constexpr std::size_t kPath = offsetof(sockaddr_un, sun_path);

std::string_view path_of(const SocketAddress& address) {
        const auto* const begin = reinterpret_cast<const char*>(&address.storage) + kPath;
        return {begin, ::strnlen(begin, address.size - kPath)};
}

// "/" means the same here.
bool is_own_root(int root) {
        struct stat theirs {};
        struct stat ours {};
        return ::fstat(root, &theirs) == 0 && ::stat("/", &ours) == 0 && theirs.st_dev == ours.st_dev &&
               theirs.st_ino == ours.st_ino;
}

int bind_with(int fd, const SocketAddress& address, mode_t mask) {
        const mode_t own = ::umask(mask);
        const int errnum = ::bind(fd, address.get(), address.size) == 0 ? 0 : errno;
        ::umask(own);
        return errnum;
}

}  // namespace

bool names_file(std::span<const std::byte> address) {
        return address.size() > kPath && address[kPath] != std::byte{0};
}

// The supervisor has one thread, so its working directory and umask are its own to change.
int bind_unix(int fd, const SocketAddress& address, const Target& target, const std::function<bool()>& still_waits) {
        if (address.size > sizeof(sockaddr_un) || address.storage.ss_family != AF_UNIX) {
                return EINVAL;
        }
        const auto mask = target.umask();
        auto directory = target.working_directory();
        auto root = target.root();
        if (!mask || !directory || !root || !is_own_root(root->get())) {
                return EACCES;
        }
        Way way = follow(path_of(address), target, root->get(), directory->get());
        // All of this is of the thread that waits: its number had not gone to another meanwhile.
        if (!still_waits()) {
                return EINTR;
        }
        if (way.through_self && way.errnum != 0) {
                if (!way.why.empty()) {
                        say(fmt::format("a bind of process {} to {} is refused: {}", target.pid(), path_of(address),
                                        way.why));
                }
                return way.errnum;
        }
        SocketAddress last = address;
        if (way.through_self) {
                last.storage = {.ss_family = AF_UNIX};
                way.name.copy(reinterpret_cast<char*>(&last.storage) + kPath, way.name.size());
                last.size = static_cast<socklen_t>(kPath + way.name.size() + 1);
        }
        // An absolute path does not depend on the folder that the program is in, which it may not be allowed to search.
        const bool stays = !way.through_self && path_of(address).starts_with('/');
        if (!stays && ::fchdir(way.through_self ? way.folder.get() : directory->get()) != 0) {
                return errno;
        }
        // The program may have put another link in the way meanwhile, which the kernel follows here: in /proc/self/fd
        // it finds no folder then.
        directory->reset();
        root->reset();
        way.folder.reset();
        const int errnum = bind_with(fd, last, *mask);
        return ::chdir("/") == 0 ? errnum : errno;
}

}  // namespace sockbroker::supervise
