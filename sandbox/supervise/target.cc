// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace sockbroker::supervise {

namespace {

// linux/pidfd.h of kernel 6.9.
constexpr unsigned kPidfdThread = O_EXCL;

// After a key at the start of a line: its number.
Result<std::uint64_t> find_number(const std::string& path, std::string_view key, int base) {
        const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        std::array<char, 4096> text{};
        const ssize_t size = fd ? ::read(fd.get(), text.data(), text.size() - 1) : -1;
        if (size < 0) {
                return fail_errno(fmt::format("cannot read {}", path));
        }
        const std::string_view all(text.data(), static_cast<std::size_t>(size));
        const auto at = all.find(key);
        if (at == std::string_view::npos) {
                return fail(ENODATA, fmt::format("no {} in {}", key.substr(1), path));
        }
        return std::strtoull(text.data() + at + key.size(), nullptr, base);  // ends with the text, which ends with NUL
}

}  // namespace

Result<Target> Target::open(pid_t tid) {
        OwnedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, tid, 0)));
        if (pidfd) {
                return Target(tid, tid, std::move(pidfd));
        }
        // Of a thread that is not the first: EINVAL, on newer kernels ENOENT.
        const auto pid = find_number(fmt::format("/proc/{}/status", tid), "\nTgid:\t", 10);
        if (!pid) {
                return std::unexpected(pid.error());
        }
        const auto first = static_cast<pid_t>(*pid);
        // A thread may have a table of descriptors of its own, and outlive the first. Before 6.9 only that one's is
        // to be had.
        pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, tid, kPidfdThread)));
        if (!pidfd) {
                pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, first, 0)));
        }
        if (!pidfd) {
                return fail_errno(fmt::format("cannot open process {}", first));
        }
        return Target(tid, first, std::move(pidfd));
}

bool Target::lives() const {
        pollfd ended{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
        return ::poll(&ended, 1, 0) == 0;
}

Result<OwnedFd> Target::descriptor(int number) const {
        OwnedFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd_.get(), number, 0)));
        if (!fd && errno == ESRCH) {
                return fail(EPERM, "cannot take the program's descriptor: its first thread has ended");
        }
        if (!fd) {
                return fail_errno("cannot take the program's descriptor");
        }
        return fd;
}

Result<void> Target::read(std::uint64_t address, std::span<std::byte> into) const {
        if (into.empty()) {
                return {};
        }
        const iovec local{.iov_base = into.data(), .iov_len = into.size()};
        const iovec remote{.iov_base = reinterpret_cast<void*>(address), .iov_len = into.size()};  // NOLINT
        const ssize_t size = ::process_vm_readv(tid_, &local, 1, &remote, 1, 0);
        if (size < 0) {
                return fail_errno("cannot read the program's memory");
        }
        if (static_cast<std::size_t>(size) != into.size()) {
                return fail(EFAULT, "cannot read the program's memory");
        }
        return {};
}

Result<void> Target::write(const std::array<Piece, 2>& pieces) const {
        std::array<iovec, 2> local{};
        std::array<iovec, 2> remote{};
        std::size_t whole = 0;
        for (std::size_t i = 0; i < pieces.size(); i++) {
                const auto& [address, from] = pieces[i];
                local[i] = {.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
                remote[i] = {.iov_base = reinterpret_cast<void*>(address), .iov_len = from.size()};  // NOLINT
                whole += from.size();
        }
        const ssize_t size = ::process_vm_writev(tid_, local.data(), local.size(), remote.data(), remote.size(), 0);
        if (size < 0) {
                return fail_errno("cannot write to the program's memory");
        }
        return static_cast<std::size_t>(size) == whole ? Result<void>{}
                                                       : fail(EFAULT, "cannot write to the program's memory");
}

bool Target::closes_on_exec(int number) const {
        const auto flags = find_number(fmt::format("/proc/{}/fdinfo/{}", tid_, number), "\nflags:\t", 8);
        return flags && (*flags & O_CLOEXEC) != 0;
}

Result<mode_t> Target::umask() const {
        const auto mask = find_number(fmt::format("/proc/{}/status", tid_), "\nUmask:\t", 8);
        return mask ? Result<mode_t>(static_cast<mode_t>(*mask)) : std::unexpected(mask.error());
}

Result<OwnedFd> Target::folder(const char* name) const {
        OwnedFd fd(::open(fmt::format("/proc/{}/{}", tid_, name).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!fd) {
                return fail_errno(fmt::format("cannot open the program's {}", name));
        }
        return fd;
}

Result<OwnedFd> Target::working_directory() const {
        return folder("cwd");
}

Result<OwnedFd> Target::root() const {
        return folder("root");
}

}  // namespace sockbroker::supervise
