// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the calls of the C library that are replaced tell fault_points.cc, and the kernel's own calls behind them.
#pragma once

#include <linux/bpf.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "tests/support/fault_points.h"

namespace sockbroker::faults {

// Not glibc's syscall(2), which is replaced.
inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
        long result = 0;
        register long r10 asm("r10") = d;
        register long r8 asm("r8") = e;
        register long r9 asm("r9") = f;
        asm volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
        return result;
}

inline long checked(long result) {
        if (result < 0 && result > -4096) {
                errno = static_cast<int>(-result);
                return -1;
        }
        return result;
}

inline long address(const void* pointer) {
        return static_cast<long>(reinterpret_cast<std::uintptr_t>(pointer));
}

extern FaultPoints* shared;  // none: nobody counts

// Before something changes; it may not return. point_once(): one of a row of the same. point_of_call(): of a process
// that is named, every call counts.
void point(const char* what, const char* on);
void point_of_call(const char* what);
[[nodiscard]] bool counts_calls();
void note_name(const char* name);  // of this process from now on
void point_once(const char* what, const char* on);
[[nodiscard]] const char* base_name(const char* path);

[[nodiscard]] bpf_map_info map_info(int fd);  // id 0: it is no map
void* map_memory(void* hint, std::size_t length, int how, int flags, int fd, off_t offset);
void forget_memory(std::uintptr_t begin, std::size_t length);
void note_fresh(std::uint32_t id, bool is_fresh);  // a map that nothing pins yet, or no longer
void before_bpf(long command, const bpf_attr& attribute);

}  // namespace sockbroker::faults
