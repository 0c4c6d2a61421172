// SPDX-License-Identifier: LGPL-2.1-or-later
//
// libFuzzer's entry to the policy parser: any bytes, one file. See policy_property.h for what is asked of it.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/policy_property.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
        // NOLINTNEXTLINE: bytes as text
        const std::string text(reinterpret_cast<const char*>(data), size);
        const auto broken = sockbroker::test::broken_property(text);
        if (!broken.empty()) {
                (void)std::fprintf(stderr, "%s\n", broken.c_str());
                std::abort();
        }
        return 0;
}
