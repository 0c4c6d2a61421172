// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Memory that ends at a moment of the test's choice, for this thread and for `new` alone.
#pragma once

namespace sockbroker::test {

extern thread_local long allocations_left;  // until one fails; below 0: none does

// Calls act() with memory for so many allocations: the next one throws std::bad_alloc, those after it do not.
template <class Act>
auto with_memory_for(long allocations, const Act& act) {
        struct Restore {
                Restore() = default;
                Restore(const Restore&) = delete;
                Restore& operator=(const Restore&) = delete;
                ~Restore() { allocations_left = -1; }
        } restore;
        allocations_left = allocations;
        return act();
}

}  // namespace sockbroker::test
