// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Preloaded into the real sockbrokerd: a disk that is slow, for tests. fsync(2) waits for as long as the test says.
// What is shared with the test is the file that $SOCKBROKER_DISK names; tests/harness/disk.py knows the layout.
#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/shared_page.h"

static struct shared {
        uint32_t slow;
        uint32_t waiting;  // calls that wait
} * shared;

__attribute__((constructor)) static void share(void) {
        shared = shared_page("SOCKBROKER_DISK", sizeof *shared);
}

int fsync(int fd) {
        const struct timespec again = {.tv_nsec = 5000000};

        if (shared) {
                __atomic_add_fetch(&shared->waiting, 1, __ATOMIC_SEQ_CST);
                while (__atomic_load_n(&shared->slow, __ATOMIC_SEQ_CST))
                        syscall(SYS_futex, &shared->slow, FUTEX_WAIT, 1, &again, NULL, 0);
                __atomic_sub_fetch(&shared->waiting, 1, __ATOMIC_SEQ_CST);
        }
        return (int)syscall(SYS_fsync, fd);
}
