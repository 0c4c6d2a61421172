// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/json_text.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include <fmt/format.h>

#include "broker/base/utf8.h"

namespace sockbroker {

namespace {

constexpr std::uint32_t kReplacement = 0xfffd;

bool is_plain(char c) {
        return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void append_escaped(std::string& text, std::uint32_t point) {
        switch (point) {
        case '"':
        case '\\':
                text += {'\\', static_cast<char>(point)};
                return;
        case '\b':
                text += "\\b";
                return;
        case '\f':
                text += "\\f";
                return;
        case '\n':
                text += "\\n";
                return;
        case '\r':
                text += "\\r";
                return;
        case '\t':
                text += "\\t";
                return;
        default:
                break;
        }
        if (point < 0x10000) {
                fmt::format_to(std::back_inserter(text), "\\u{:04x}", point);
        } else {
                fmt::format_to(std::back_inserter(text), "\\u{:04x}\\u{:04x}", 0xd7c0 + (point >> 10),
                               0xdc00 + (point & 0x3ff));
        }
}

}  // namespace

JsonText::JsonText(std::string_view text) {
        text_.reserve(text.size() + 2);
        text_ += '"';
        while (!text.empty()) {
                const auto plain = std::ranges::find_if_not(text, is_plain);
                text_.append(text.begin(), plain);
                text.remove_prefix(static_cast<std::size_t>(plain - text.begin()));
                if (text.empty()) {
                        break;
                }
                const auto [length, point] = first_character(text);
                append_escaped(text_, length == 0 ? kReplacement : point);
                text.remove_prefix(length == 0 ? 1 : length);
        }
        text_ += '"';
}

JsonText::JsonText(const std::vector<std::string>& array) {
        std::string_view before = "[";
        for (const auto& element : array) {
                text_ += before;
                text_ += JsonText(element).text();
                before = ",";
        }
        text_ += array.empty() ? "[]" : "]";
}

JsonText::JsonText(std::initializer_list<JsonMember> object) {
        std::string_view before = "{";
        for (const auto& [name, value] : object) {
                text_.append(before).append("\"").append(name).append("\":").append(value.text());
                before = ",";
        }
        text_ += object.size() == 0 ? "{}" : "}";
}

}  // namespace sockbroker
