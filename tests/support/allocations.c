// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Preloaded into the real sockbrokerd: makes allocations fail, for tests. What is shared with the test is the file that
// $SOCKBROKER_ALLOCATIONS names; tests/harness/allocations.py knows the layout.
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/shared_page.h"

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);

static struct shared {
        uint32_t armed;
        uint32_t first;  // the number of the allocation that fails, from 1
        uint32_t many;   // how many fail from there on
        uint32_t count;  // since it was armed
} * shared;

__attribute__((constructor)) static void share(void) {
        shared = shared_page("SOCKBROKER_ALLOCATIONS", sizeof *shared);
}

static int fails(void) {
        uint32_t number;

        if (!shared || !__atomic_load_n(&shared->armed, __ATOMIC_SEQ_CST))
                return 0;
        number = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
        if (number < shared->first || number - shared->first >= shared->many)
                return 0;
        errno = ENOMEM;
        return 1;
}

void* malloc(size_t size) {
        return fails() ? NULL : __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
        return fails() ? NULL : __libc_calloc(number, size);
}

void* realloc(void* old, size_t size) {
        return fails() ? NULL : __libc_realloc(old, size);
}
