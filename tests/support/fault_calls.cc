// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The calls of the C library that change something, and those that map memory, for fault_points.cc. A definition here
// takes the place of glibc's.
#include "tests/support/fault_calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <ctime>

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
        if (counts_calls()) {
                point_of_call("syscall");
                return checked(raw(number, a[0], a[1], a[2], a[3], a[4], a[5]));
        }
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

// --- of a process that is named

int prctl(int option, ...) noexcept {
        va_list list;
        va_start(list, option);
        std::array<long, 4> a{};
        for (long& one : a) {
                one = va_arg(list, long);
        }
        va_end(list);
        if (option == PR_SET_NAME) {
                note_name(reinterpret_cast<const char*>(a[0]));
        }
        return static_cast<int>(checked(raw(SYS_prctl, option, a[0], a[1], a[2], a[3])));
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
        point_of_call("recvmsg");
        return checked(raw(SYS_recvmsg, fd, address(message), flags));
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
        point_of_call("sendmsg");
        return checked(raw(SYS_sendmsg, fd, address(message), flags));
}

ssize_t recv(int fd, void* data, std::size_t size, int flags) {
        point_of_call("recv");
        return checked(raw(SYS_recvfrom, fd, address(data), static_cast<long>(size), flags));
}

ssize_t send(int fd, const void* data, std::size_t size, int flags) {
        point_of_call("send");
        return checked(raw(SYS_sendto, fd, address(data), static_cast<long>(size), flags));
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
        point_of_call("ppoll");
        timespec left = timeout == nullptr ? timespec{} : *timeout;  // the kernel writes there
        constexpr long kMaskBytes = 8;
        return static_cast<int>(checked(raw(SYS_ppoll, address(fds), static_cast<long>(count),
                                            timeout == nullptr ? 0 : address(&left), address(mask), kMaskBytes)));
}

int accept4(int fd, sockaddr* from, socklen_t* size, int flags) {
        point_of_call("accept4");
        return static_cast<int>(checked(raw(SYS_accept4, fd, address(from), address(size), flags)));
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
        point_of_call("getsockopt");
        return static_cast<int>(checked(raw(SYS_getsockopt, fd, level, name, address(value), address(size))));
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t size) noexcept {
        point_of_call("setsockopt");
        return static_cast<int>(checked(raw(SYS_setsockopt, fd, level, name, address(value), size)));
}

int shutdown(int fd, int how) noexcept {
        point_of_call("shutdown");
        return static_cast<int>(checked(raw(SYS_shutdown, fd, how)));
}

int close(int fd) {
        point_of_call("close");
        return static_cast<int>(checked(raw(SYS_close, fd)));
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
        point_of_call("close_range");
        return static_cast<int>(checked(raw(SYS_close_range, first, last, flags)));
}

int dup3(int from, int to, int flags) noexcept {
        point_of_call("dup3");
        return static_cast<int>(checked(raw(SYS_dup3, from, to, flags)));
}

int pipe2(int* ends, int flags) noexcept {
        point_of_call("pipe2");
        return static_cast<int>(checked(raw(SYS_pipe2, address(ends), flags)));
}

pid_t fork() noexcept {
        point_of_call("fork");
        static const auto real = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_NEXT, "fork"));
        return real();
}

pid_t waitpid(pid_t pid, int* status, int options) {
        point_of_call("waitpid");
        return static_cast<pid_t>(checked(raw(SYS_wait4, pid, address(status), options)));
}

int kill(pid_t pid, int signal) noexcept {
        point_of_call("kill");
        return static_cast<int>(checked(raw(SYS_kill, pid, signal)));
}

ssize_t read(int fd, void* data, std::size_t size) {
        point_of_call("read");
        return checked(raw(SYS_read, fd, address(data), static_cast<long>(size)));
}

ssize_t write(int fd, const void* data, std::size_t size) {
        point_of_call("write");
        if (shared != nullptr && !counts_calls()) {
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
