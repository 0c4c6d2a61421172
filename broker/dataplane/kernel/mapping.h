// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A BPF array in this process's memory. Needs no capability. Pages that were touched count as resident, so the rule
// memory is mapped only while it is written.
#pragma once

#include <sys/mman.h>

#include <cstddef>
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
                void* memory = mmap(nullptr, result.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (memory == MAP_FAILED) {
                        return fail_errno(std::string("cannot map the pinned BPF map ") + name);
                }
                result.data_ = static_cast<T*>(memory);
                return result;
        }

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
