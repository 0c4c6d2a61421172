// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Large arrays in huge pages where the kernel has them: page faults and TLB misses were a good part of a load.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace sockbroker {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// For memory that is not written yet. What is smaller than a huge page, and a kernel without them, stay as they are.
void prefer_huge_pages(void* memory, std::size_t bytes);

// An allocator for large arrays that live for one load and are accessed all over.
template <class T>
struct ScratchAllocator {
        using value_type = T;

        ScratchAllocator() = default;
        template <class U>
        explicit ScratchAllocator(const ScratchAllocator<U>&) {}

        [[nodiscard]] T* allocate(std::size_t count) {
                const std::size_t bytes = count * sizeof(T);
                if (bytes < kHugePage) {
                        return std::allocator<T>().allocate(count);
                }
                void* memory = ::operator new (bytes, std::align_val_t{kHugePage});
                prefer_huge_pages(memory, bytes);
                return static_cast<T*>(memory);
        }
        void deallocate(T* memory, std::size_t count) {
                if (count * sizeof(T) < kHugePage) {
                        std::allocator<T>().deallocate(memory, count);
                } else {
                        ::operator delete (memory, std::align_val_t{kHugePage});
                }
        }
        bool operator==(const ScratchAllocator&) const = default;

        // Elements that are to be written anyway are not cleared before.
        template <class U>
        void construct(U* place) {
                ::new (static_cast<void*>(place)) U;
        }
        template <class U, class... Arguments>
        void construct(U* place, Arguments&&... arguments) {
                std::construct_at(place, std::forward<Arguments>(arguments)...);
        }
};

template <class T>
using Scratch = std::vector<T, ScratchAllocator<T>>;

}  // namespace sockbroker
