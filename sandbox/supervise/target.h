// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The thread whose call waits: its memory, its descriptors, and what of it a bind of a UNIX socket depends on. All of
// it is the program's word; whether it is still that of the same thread is Notifications::is_valid()'s to say,
// afterwards.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker::supervise {

class Target {
public:
        // `tid` as the notification has it.
        [[nodiscard]] static Result<Target> open(pid_t tid);

        [[nodiscard]] pid_t pid() const { return pid_; }  // of the process
        [[nodiscard]] pid_t tid() const { return tid_; }

        [[nodiscard]] bool lives() const;

        // Another descriptor of the same open file. Errors: EBADF: it has none of that number; EPERM: may not look.
        [[nodiscard]] Result<OwnedFd> descriptor(int number) const;
        // Errors: EFAULT; EPERM: may not look.
        [[nodiscard]] Result<void> read(std::uint64_t address, std::span<std::byte> into) const;

        struct Piece {
                std::uint64_t address;
                std::span<const std::byte> from;
        };
        // One after the other, by one system call. Errors as those of read().
        [[nodiscard]] Result<void> write(const std::array<Piece, 2>& pieces) const;

        [[nodiscard]] bool closes_on_exec(int number) const;
        [[nodiscard]] Result<mode_t> umask() const;
        [[nodiscard]] Result<OwnedFd> working_directory() const;
        [[nodiscard]] Result<OwnedFd> root() const;

private:
        [[nodiscard]] Result<OwnedFd> folder(const char* name) const;

        Target(pid_t tid, pid_t pid, OwnedFd pidfd) : tid_(tid), pid_(pid), pidfd_(std::move(pidfd)) {}

        pid_t tid_;
        pid_t pid_;
        OwnedFd pidfd_;  // of the thread; on kernels before 6.9 of the process
};

}  // namespace sockbroker::supervise
