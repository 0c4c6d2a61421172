// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See printable.h. Pure.
#include "broker/base/printable.h"

#include <cstddef>
#include <cstdint>

namespace sockbroker {

namespace {

// Bytes of the well-formed UTF-8 character at the front of `text`, which is not empty; 0: none there (RFC 3629).
std::size_t character_length(std::string_view text) {
        const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
        const std::uint8_t lead = byte(0);
        std::size_t length = 0;
        std::uint32_t point = 0;
        std::uint32_t least = 0;
        if (lead < 0x80) {
                return 1;
        } else if ((lead & 0xe0) == 0xc0) {
                length = 2, point = lead & 0x1f, least = 0x80;
        } else if ((lead & 0xf0) == 0xe0) {
                length = 3, point = lead & 0x0f, least = 0x800;
        } else if ((lead & 0xf8) == 0xf0) {
                length = 4, point = lead & 0x07, least = 0x10000;
        } else {
                return 0;
        }
        if (text.size() < length) {
                return 0;
        }
        for (std::size_t i = 1; i < length; ++i) {
                if ((byte(i) & 0xc0) != 0x80) {
                        return 0;
                }
                point = point << 6 | (byte(i) & 0x3f);
        }
        const bool surrogate = 0xd800 <= point && point <= 0xdfff;
        return point < least || point > 0x10ffff || surrogate ? 0 : length;
}

bool is_control(std::string_view character) {
        const auto first = static_cast<std::uint8_t>(character[0]);
        if (character.size() == 1) {
                return first < 0x20 || first == 0x7f;
        }
        return character.size() == 2 && first == 0xc2 && static_cast<std::uint8_t>(character[1]) < 0xa0;
}

}  // namespace

std::string printable(std::string_view text) {
        static constexpr char kHex[] = "0123456789abcdef";
        std::string result;
        result.reserve(text.size());
        while (!text.empty()) {
                const std::size_t length = character_length(text);
                const std::string_view character = text.substr(0, length == 0 ? 1 : length);
                if (length != 0 && !is_control(character)) {
                        result += character;
                } else {
                        for (const char c : character) {
                                const auto value = static_cast<std::uint8_t>(c);
                                result += {'\\', 'x', kHex[value >> 4], kHex[value & 15]};
                        }
                }
                text.remove_prefix(character.size());
        }
        return result;
}

}  // namespace sockbroker
