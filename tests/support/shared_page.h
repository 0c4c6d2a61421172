// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a library that is preloaded into a real program shares with its test: the beginning of a file, which
// tests/harness/preloaded.py makes.
#pragma once

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// Of the file that the environment names there. NULL: it names none.
static void* shared_page(const char* variable, size_t size) {
        const char* path = getenv(variable);
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void* page = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (fd >= 0)
                close(fd);
        return page == MAP_FAILED ? NULL : page;
}
