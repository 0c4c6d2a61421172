// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One run of a program for sk_lookup over a packet that is made up, by BPF_PROG_TEST_RUN: the program need not be
// attached, and a socket that it assigns gets nothing.
#pragma once

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstdint>

#include "broker/base/result.h"

namespace sockbroker {

struct TestRun {
        std::uint32_t verdict = 0;  // SK_PASS or SK_DROP; SK_PASS too where a socket was assigned
        std::uint64_t cookie = 0;   // of the socket that was assigned, 0: none
};

// The kernel sets the ingress interface itself and refuses a `packet` that names one.
[[nodiscard]] inline Result<TestRun> test_run(int program, bpf_sk_lookup packet) {
        bpf_sk_lookup after{};
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.ctx_in = &packet;
        options.ctx_size_in = sizeof packet;
        options.ctx_out = &after;
        options.ctx_size_out = sizeof after;
        if (bpf_prog_test_run_opts(program, &options) != 0) {
                return fail_errno("cannot run the program over a packet");
        }
        return TestRun{.verdict = options.retval, .cookie = after.cookie};
}

}  // namespace sockbroker
