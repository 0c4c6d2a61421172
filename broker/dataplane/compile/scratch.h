// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An allocator for large arrays that live for one load and are accessed all over: in huge pages where the kernel has
// them, since page faults and TLB misses were a good part of a load.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace sockbroker {

template <class T>
struct ScratchAllocator {
        using value_type = T;
        static constexpr std::size_t kHuge = std::size_t{2} << 20;

        ScratchAllocator() = default;
        template <class U>
        explicit ScratchAllocator(const ScratchAllocator<U>&) {}

        [[nodiscard]] T* allocate(std::size_t count) {
                const std::size_t bytes = count * sizeof(T);
                if (bytes < kHuge) {
                        return std::allocator<T>().allocate(count);
                }
                void* memory = ::operator new (bytes, std::align_val_t{kHuge});
                (void)madvise(memory, bytes, MADV_HUGEPAGE);  // a kernel without them is slower, that is all
                return static_cast<T*>(memory);
        }
        void deallocate(T* memory, std::size_t count) {
                if (count * sizeof(T) < kHuge) {
                        std::allocator<T>().deallocate(memory, count);
                } else {
                        ::operator delete (memory, std::align_val_t{kHuge});
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
