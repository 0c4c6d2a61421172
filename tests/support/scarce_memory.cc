// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/support/scarce_memory.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace sockbroker::test {

thread_local long allocations_left = -1;

}  // namespace sockbroker::test

void* operator new(std::size_t size) {
        auto& left = sockbroker::test::allocations_left;
        void* const memory = left >= 0 && left-- == 0 ? nullptr : std::malloc(size);
        if (memory == nullptr) {
                throw std::bad_alloc();
        }
        return memory;
}
void operator delete(void* memory) noexcept {
        std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
        std::free(memory);
}
