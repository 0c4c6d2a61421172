// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See printable.h. Pure.
#include "broker/base/printable.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "broker/base/utf8.h"

namespace sockbroker {

namespace {

struct Range {
        std::uint32_t first;
        std::uint32_t last;
};

// Categories Cc, Cf, Zl and Zp of Unicode 15.1, and the block of tags as a whole, in order.
constexpr std::array kUnseen{
        Range{0x0000, 0x001f},   Range{0x007f, 0x009f},   Range{0x00ad, 0x00ad},   Range{0x0600, 0x0605},
        Range{0x061c, 0x061c},   Range{0x06dd, 0x06dd},   Range{0x070f, 0x070f},   Range{0x0890, 0x0891},
        Range{0x08e2, 0x08e2},   Range{0x180e, 0x180e},   Range{0x200b, 0x200f},   Range{0x2028, 0x202e},
        Range{0x2060, 0x206f},   Range{0xfeff, 0xfeff},   Range{0xfff9, 0xfffb},   Range{0x110bd, 0x110bd},
        Range{0x110cd, 0x110cd}, Range{0x13430, 0x1343f}, Range{0x1bca0, 0x1bca3}, Range{0x1d173, 0x1d17a},
        Range{0xe0000, 0xe007f},
};

bool is_unseen(std::uint32_t point) {
        const auto after = std::ranges::upper_bound(kUnseen, point, {}, &Range::first);
        return after != kUnseen.begin() && point <= std::prev(after)->last;
}

}  // namespace

std::string printable(std::string_view text) {
        static constexpr char kHex[] = "0123456789abcdef";
        std::string result;
        result.reserve(text.size());
        while (!text.empty()) {
                const auto [length, point] = first_character(text);
                const std::string_view character = text.substr(0, length == 0 ? 1 : length);
                if (length != 0 && !is_unseen(point)) {
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
