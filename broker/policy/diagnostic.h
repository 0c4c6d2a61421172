// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One thing that is said of a file, as a person reads it.
#pragma once

#include <cstdint>
#include <string>

namespace sockbroker {

enum class Severity : std::uint8_t { kError, kWarning };

struct Diagnostic {
        std::string file;
        unsigned line = 0;  // 0: the file as a whole
        Severity severity = Severity::kError;
        std::string message;

        [[nodiscard]] std::string to_string() const;  // "file:line: message"
        bool operator==(const Diagnostic&) const = default;
};

}  // namespace sockbroker
