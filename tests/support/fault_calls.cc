// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The calls of the C library that change something, and those that map memory, for fault_points.cc. A definition here
// takes the place of glibc's.
#include "tests/support/fault_calls.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdio>

namespace {

using namespace sockbroker::faults;

bool exists(int directory, const char* path) {
        return raw(SYS_faccessat, directory, address(path), F_OK) == 0;
}

int open_file(const char* path, int flags, mode_t mode) {
        if ((flags & (O_CREAT | O_TRUNC)) != 0) {
                point("open", base_name(path));
        }
        return static_cast<int>(checked(raw(SYS_openat, AT_FDCWD, address(path), flags, mode)));
}

}  // namespace

extern "C" {

long syscall(long number, ...) noexcept {
        va_list list;
        va_start(list, number);
        std::array<long, 6> a{};
        for (long& one : a) {
                one = va_arg(list, long);
        }
        va_end(list);
        if (shared != nullptr && number == SYS_bpf) {
                before_bpf(a[0], *reinterpret_cast<const bpf_attr*>(a[1]));
        }
        if (shared != nullptr && number == SYS_seccomp) {
                return 0;  // the broker's own filter lets nobody ask what a map is called, nor kill
        }
        const long result = raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (shared != nullptr && number == SYS_bpf && a[0] == BPF_MAP_CREATE && result >= 0) {
                note_fresh(map_info(static_cast<int>(result)).id, true);
        }
        return checked(result);
}

void* mmap(void* hint, std::size_t length, int how, int flags, int fd, off_t offset) noexcept {
        return map_memory(hint, length, how, flags, fd, offset);
}

void* mmap64(void* hint, std::size_t length, int how, int flags, int fd, off64_t offset) noexcept {
        return map_memory(hint, length, how, flags, fd, offset);
}

int munmap(void* memory, std::size_t length) noexcept {
        forget_memory(reinterpret_cast<std::uintptr_t>(memory), length);
        return static_cast<int>(checked(raw(SYS_munmap, address(memory), static_cast<long>(length))));
}

int rename(const char* from, const char* to) noexcept {
        point("rename to", base_name(to));
        return static_cast<int>(checked(raw(SYS_rename, address(from), address(to))));
}

int unlink(const char* path) noexcept {
        if (exists(AT_FDCWD, path)) {
                point("unlink", base_name(path));
        }
        return static_cast<int>(checked(raw(SYS_unlink, address(path))));
}

int unlinkat(int directory, const char* path, int flags) noexcept {
        point("unlink", base_name(path));
        return static_cast<int>(checked(raw(SYS_unlinkat, directory, address(path), flags)));
}

int mkdir(const char* path, mode_t mode) noexcept {
        if (!exists(AT_FDCWD, path)) {
                point("mkdir", base_name(path));
        }
        return static_cast<int>(checked(raw(SYS_mkdir, address(path), mode)));
}

int mount(const char* what, const char* where, const char* kind, unsigned long flags, const void* data) noexcept {
        point("mount", base_name(where));
        return static_cast<int>(checked(
                raw(SYS_mount, address(what), address(where), address(kind), static_cast<long>(flags), address(data))));
}

int chmod(const char* path, mode_t mode) noexcept {
        point("chmod", base_name(path));
        return static_cast<int>(checked(raw(SYS_chmod, address(path), mode)));
}

int bind(int fd, const sockaddr* to, socklen_t length) noexcept {
        point("bind", "a socket");
        return static_cast<int>(checked(raw(SYS_bind, fd, address(to), length)));
}

int open(const char* path, int flags, ...) {
        va_list list;
        va_start(list, flags);
        const auto mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
        va_end(list);
        return open_file(path, flags, mode);
}

int open64(const char* path, int flags, ...) __attribute__((alias("open")));

ssize_t write(int fd, const void* data, std::size_t size) {
        if (shared != nullptr) {
                struct stat status {};
                if (raw(SYS_newfstatat, fd, address(""), address(&status), AT_EMPTY_PATH) == 0 &&
                    S_ISREG(status.st_mode)) {
                        point_once("write", "a file");
                }
        }
        return checked(raw(SYS_write, fd, address(data), static_cast<long>(size)));
}

int fsync(int fd) {
        point("fsync", "a file");
        return static_cast<int>(checked(raw(SYS_fsync, fd)));
}
}
