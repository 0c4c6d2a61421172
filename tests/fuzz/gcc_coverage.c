// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Guides libFuzzer in programs that g++ compiled: -fsanitize-coverage=trace-pc calls this at each basic block, and
// libFuzzer reads a section of that name beside its own counters.
#include <stdint.h>

void __sanitizer_cov_trace_pc(void);

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[1 << 16];

void __sanitizer_cov_trace_pc(void) {
        const uintptr_t pc = (uintptr_t)__builtin_return_address(0);
        counters[(pc ^ (pc >> 16)) & 0xffff]++;
}
