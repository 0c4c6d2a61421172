// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A BPF array in this process's memory. Needs no capability. Pages that were touched count as resident, so the rule
// memory is mapped only while it is written.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "broker/base/result.h"

namespace sockbroker {

template <class T>
class Mapping {
public:
        // `count` elements, each of a size that is a multiple of eight: that is the kernel's stride.
        [[nodiscard]] static Result<Mapping> create(int fd, std::size_t count, const char* name) {
                static_assert(sizeof(T) % 8 == 0);
                Mapping result;
                result.bytes_ = count * sizeof(T);
                void* memory =
                        mmap(nullptr, result.bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                if (memory == MAP_FAILED) {
                        return fail_errno(std::string("cannot find room to map the pinned BPF map ") + name);
                }
                result.data_ = static_cast<T*>(memory);
                for (std::size_t at = 0; at < result.bytes_; at += kPieceBytes) {
                        if (mmap(static_cast<char*>(memory) + at, std::min(kPieceBytes, result.bytes_ - at),
                                 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                                 static_cast<off_t>(at)) == MAP_FAILED) {
                                return fail_errno(std::string("cannot map the pinned BPF map ") + name);
                        }
                }
                return result;
        }

        // The kernel enters all pages of such a mapping at once and lets nobody else run meanwhile: 10 ms for the rules
        // of a million bindings in one piece, half a millisecond for each of these.
        static constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

        Mapping() = default;
        Mapping(Mapping&& other) noexcept
                : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
        Mapping& operator=(Mapping&& other) noexcept {
                std::swap(data_, other.data_);
                std::swap(bytes_, other.bytes_);
                return *this;
        }
        Mapping(const Mapping&) = delete;
        Mapping& operator=(const Mapping&) = delete;
        ~Mapping() {
                if (data_ != nullptr) {
                        munmap(data_, bytes_);
                }
        }

        [[nodiscard]] T& operator[](std::size_t index) const { return data_[index]; }
        [[nodiscard]] T* data() const { return data_; }

private:
        T* data_ = nullptr;
        std::size_t bytes_ = 0;
};

}  // namespace sockbroker
