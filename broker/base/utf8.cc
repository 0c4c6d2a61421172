// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/utf8.h"

namespace sockbroker {

Character first_character(std::string_view text) {
        const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
        const std::uint8_t lead = byte(0);
        std::size_t length = 0;
        std::uint32_t point = 0;
        std::uint32_t least = 0;
        if (lead < 0x80) {
                return {1, lead};
        } else if ((lead & 0xe0) == 0xc0) {
                length = 2, point = lead & 0x1f, least = 0x80;
        } else if ((lead & 0xf0) == 0xe0) {
                length = 3, point = lead & 0x0f, least = 0x800;
        } else if ((lead & 0xf8) == 0xf0) {
                length = 4, point = lead & 0x07, least = 0x10000;
        } else {
                return {};
        }
        if (text.size() < length) {
                return {};
        }
        for (std::size_t i = 1; i < length; ++i) {
                if ((byte(i) & 0xc0) != 0x80) {
                        return {};
                }
                point = point << 6 | (byte(i) & 0x3f);
        }
        const bool surrogate = 0xd800 <= point && point <= 0xdfff;
        return point < least || point > 0x10ffff || surrogate ? Character{} : Character{length, point};
}

}  // namespace sockbroker
