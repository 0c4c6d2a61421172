// SPDX-License-Identifier: LGPL-2.1-or-later
//
// OwnedFd: the one owner of a file descriptor. Functions that only look at a descriptor take a plain int,
// which is borrowed for the call and never kept.
#pragma once

#include <unistd.h>

#include <utility>

namespace sockbroker {

class OwnedFd {
public:
        OwnedFd() = default;
        explicit OwnedFd(int fd) : fd_(fd) {}
        OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
        OwnedFd& operator=(OwnedFd&& other) noexcept {
                if (this != &other) {
                        reset(std::exchange(other.fd_, -1));
                }
                return *this;
        }
        OwnedFd(const OwnedFd&) = delete;
        OwnedFd& operator=(const OwnedFd&) = delete;
        ~OwnedFd() { reset(); }

        [[nodiscard]] int get() const { return fd_; }
        [[nodiscard]] bool valid() const { return fd_ >= 0; }
        explicit operator bool() const { return valid(); }
        [[nodiscard]] int release() { return std::exchange(fd_, -1); }
        void reset(int fd = -1) {
                if (fd_ >= 0) {
                        ::close(fd_);
                }
                fd_ = fd;
        }

private:
        int fd_ = -1;
};

}  // namespace sockbroker
