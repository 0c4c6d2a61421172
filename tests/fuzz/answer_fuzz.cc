// SPDX-License-Identifier: LGPL-2.1-or-later
//
// libFuzzer entry: what a hand that was taken over might write to the core.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/answer_property.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
        const auto broken = sockbroker::test::broken_answer_property(std::as_bytes(std::span(data, size)));
        if (!broken.empty()) {
                std::fprintf(stderr, "broken: %s\n", broken.c_str());
                std::abort();
        }
        (void)sockbroker::hands::parse_zygote_report(std::as_bytes(std::span(data, size)));
        (void)sockbroker::hands::parse_refused_report(std::as_bytes(std::span(data, size)));
        return 0;
}
