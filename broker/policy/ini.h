// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One text in the broker's strict INI grammar. inih splits the lines, but it never sees one that it could read in
// another way than a person does: each line is checked first, one that fails is reported and withheld, and what inih
// then hands back must be that line to the byte. Key=Value of nothing but letters, digits and .:/*-_[]@ can only be
// read in one way, and does not go through inih: these are a million lines, the others are few. Knows nothing of
// policies; of sections and keys only their shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

// inih's buffer is 200 bytes with the terminator, for a section's name it is 50. Beyond, it cuts without a word.
inline constexpr std::size_t kMaxIniLine = 199;
inline constexpr std::size_t kMaxIniSection = 49;

enum class IniLine : std::uint8_t { kBlank, kComment, kSection, kEntry };

// What a line is, or what is wrong with it. `line` has no line end; `first`: it is the first of its file;
// `section_form`: how sections are written there, for messages.
[[nodiscard]] Result<IniLine> check_ini_line(std::string_view line, bool first, std::string_view section_form);

// Called for each line that means something, in the order of the text.
class IniSink {
public:
        virtual ~IniSink() = default;
        // The text between the brackets; empty after an error in a section line, to say that the former one is over.
        // `lines`: how many there are up to the next section.
        virtual void section(unsigned line, std::string_view name, std::size_t lines) = 0;
        virtual void entry(unsigned line, std::string_view key, std::string_view value) = 0;
        virtual void error(unsigned line, std::string message) = 0;
        [[nodiscard]] virtual std::string_view section_form() const { return "[Service NAME]"; }
};

void read_ini(std::string_view text, IniSink& sink);

}  // namespace sockbroker
