// SPDX-License-Identifier: LGPL-2.1-or-later
//
// JSON as the daemon writes it, and never reads it: values become text as they are made. Not the library of the tool,
// whose objects allocate when they are destroyed, and end the process where there is no memory.
#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace sockbroker {

struct JsonMember;

class JsonText {
public:
        JsonText(std::nullptr_t) : text_("null") {}
        JsonText(bool value) : text_(value ? "true" : "false") {}
        template <std::integral Number>
        JsonText(Number number) : text_(std::to_string(number)) {}
        // ASCII alone, all else escaped: what a terminal would obey. What is no UTF-8 becomes U+FFFD.
        JsonText(std::string_view text);
        JsonText(const std::string& text) : JsonText(std::string_view(text)) {}
        JsonText(const char* text) : JsonText(std::string_view(text)) {}
        JsonText(const std::vector<std::string>& array);
        JsonText(std::initializer_list<JsonMember> object);

        [[nodiscard]] const std::string& text() const { return text_; }

private:
        std::string text_;
};

struct JsonMember {
        std::string_view name;  // needs no escaping
        JsonText value;
};

}  // namespace sockbroker
