// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Text one character after the other. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sockbroker {

struct Character {
        std::size_t length = 0;  // bytes; 0: the text does not begin with well-formed UTF-8
        std::uint32_t point = 0;
};

// The character at the front of `text`, which is not empty (RFC 3629).
[[nodiscard]] Character first_character(std::string_view text);

}  // namespace sockbroker
