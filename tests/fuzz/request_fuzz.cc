// SPDX-License-Identifier: LGPL-2.1-or-later
//
// libFuzzer entry: the first two bytes choose the socket and the number of descriptors, the rest is the text.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/request_property.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
        using namespace sockbroker;
        if (size < 2) {
                return 0;
        }
        const auto channel = (data[0] & 1) != 0 ? Channel::kControl : Channel::kNotify;
        const std::string_view text(reinterpret_cast<const char*>(data + 2), size - 2);
        const auto broken = test::broken_property(channel, text, data[1]);
        if (!broken.empty()) {
                std::fprintf(stderr, "broken: %s\n", broken.c_str());
                std::abort();
        }
        return 0;
}
