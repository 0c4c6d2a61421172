// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/ini.h"

#include <ini.h>

#include <algorithm>
#include <array>
#include <exception>

#include <fmt/format.h>

namespace sockbroker {

namespace {

constexpr std::string_view kBlanks = " \t";

bool is_blank(char c) {
        return kBlanks.find(c) != std::string_view::npos;
}

// No functions, so that they are inlined where each byte of a line is looked at.
constexpr auto is_key_character = [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
};

// Of a value: what has no meaning in any dialect of INI.
constexpr auto is_unambiguous = [](char c) {
        return is_key_character(c) || std::string_view(".:/*-_[]@").find(c) != std::string_view::npos;
};

// One load for each byte of a text.
template <class Predicate>
constexpr std::array<bool, 256> table_of(Predicate predicate) {
        std::array<bool, 256> table{};
        for (unsigned byte = 0; byte < table.size(); byte++) {
                table[byte] = predicate(static_cast<char>(byte));
        }
        return table;
}
constexpr auto kKeyCharacters = table_of(is_key_character);
constexpr auto kUnambiguous = table_of(is_unambiguous);

// The first byte that is not of the table.
const char* skip(const char* at, const char* end, const std::array<bool, 256>& table) {
        while (at != end && table[static_cast<unsigned char>(*at)]) {
                at++;
        }
        return at;
}

// Outside comments nothing is taken that a screen could hide.
constexpr auto is_plain = [](char c) { return c == '\t' || (c >= 0x20 && c < 0x7f); };

Result<IniLine> check_section(std::string_view line, std::string_view form) {
        const auto close = line.find(']');
        if (close == std::string_view::npos) {
                return fail(fmt::format("section line without ], write {}", form));
        }
        if (close + 1 != line.size()) {
                return fail("text after the ] of a section line, a comment has a line of its own");
        }
        const auto name = line.substr(1, close - 1);
        if (name.empty()) {
                // Readers give what follows such a line to nobody.
                return fail(fmt::format("section line with nothing in its brackets, write {}", form));
        }
        if (name.size() > kMaxIniSection) {
                return fail(fmt::format("section name of {} bytes, at most {} are taken", name.size(), kMaxIniSection));
        }
        if (name.find_first_of("[;#") != std::string_view::npos) {
                return fail(fmt::format("section line with one of [ ; # inside, write {}", form));
        }
        return IniLine::kSection;
}

Result<IniLine> check_value(std::string_view value) {
        if (value.empty()) {
                return IniLine::kEntry;
        }
        if (is_blank(value.front())) {
                return fail("blank after =, write Key=Value without blanks around =");
        }
        if (is_blank(value.back())) {
                return fail("blank at the end of the line, remove it");
        }
        if (value.find(';') != std::string_view::npos || value.find('#') != std::string_view::npos) {
                return fail("; or # in a value, a comment has a line of its own with # or ; in column one");
        }
        if (value.find('"') != std::string_view::npos || value.find('\'') != std::string_view::npos) {
                return fail("quotes are not taken, write the value without them");
        }
        if (value.back() == '\\') {
                return fail("lines are not continued by \\, repeat the key instead");
        }
        return IniLine::kEntry;
}

Result<IniLine> check_entry(std::string_view line, std::string_view section_form) {
        const auto end = std::find_if_not(line.begin(), line.end(), is_key_character);
        const auto key = line.substr(0, static_cast<std::size_t>(end - line.begin()));
        const auto rest = line.substr(key.size());
        if (rest.starts_with('=')) {
                if (key.empty()) {
                        return fail("no key before =, write Key=Value");
                }
                return check_value(rest.substr(1));
        }
        if (rest.starts_with(':')) {
                return fail("keys are followed by =, not by :, write Key=Value");
        }
        const auto after = rest.find_first_not_of(kBlanks);
        if (after != std::string_view::npos && after > 0 && rest[after] == '=') {
                return fail("blank before =, write Key=Value without blanks around =");
        }
        if (line.find('=') == std::string_view::npos) {
                return fail(fmt::format("neither {} nor Key=Value nor a comment", section_form));
        }
        return fail("a key consists of letters and digits, write Key=Value from column one");
}

}  // namespace

Result<IniLine> check_ini_line(std::string_view line, bool first, std::string_view section_form) {
        if (line.size() > kMaxIniLine) {
                return fail(fmt::format("line of {} bytes, at most {} are taken: split it, lists add up", line.size(),
                                        kMaxIniLine));
        }
        if (line.find('\0') != std::string_view::npos) {
                return fail("NUL byte in the line, the file is damaged or no text");
        }
        if (line.find('\r') != std::string_view::npos) {
                return fail("carriage return in the line, save the file with UNIX line ends");
        }
        if (first && line.starts_with("\xef\xbb\xbf")) {
                return fail("byte order mark before the first line, save the file without one");
        }
        const auto start = line.find_first_not_of(kBlanks);
        if (start == std::string_view::npos) {
                return IniLine::kBlank;
        }
        if (line[0] == '#' || line[0] == ';') {
                return IniLine::kComment;
        }
        if (start > 0) {
                return fail(
                        "indented line, comments, sections and keys start in column one and no line continues another");
        }
        const auto odd = std::find_if_not(line.begin(), line.end(), is_plain);
        if (odd != line.end()) {
                return fail(fmt::format("byte 0x{:02x} in column {}, outside comments only printable ASCII is taken",
                                        static_cast<unsigned char>(*odd), odd - line.begin() + 1));
        }
        return line[0] == '[' ? check_section(line, section_form) : check_entry(line, section_form);
}

namespace {

std::size_t count_lines_of_section(std::string_view text) {
        std::size_t lines = 0;
        while (!text.empty() && text[0] != '[') {
                text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
                lines++;
        }
        return lines;
}

// Feeds inih line by line, so that it is known which line a call of the handler is about.
class Feeder {
public:
        Feeder(std::string_view text, IniSink& sink) : rest_(text), sink_(sink) {}

        void run() {
                const int status = ini_parse_stream(&Feeder::read_line, this, &Feeder::handle, this);
                if (failure_) {
                        std::rethrow_exception(failure_);
                }
                expect_answered();
                if (status != 0) {
                        disagree(line_number_);  // inih has not seen all lines, so its number is not ours
                }
        }

private:
        // No exception may cross inih, which is C.
        static char* read_line(char* buffer, int size, void* self) {
                auto& feeder = *static_cast<Feeder*>(self);
                try {
                        return feeder.next(buffer, static_cast<std::size_t>(size)) ? buffer : nullptr;
                } catch (...) {
                        feeder.failure_ = std::current_exception();
                        return nullptr;
                }
        }

        static int handle(void* self, const char* section, const char* name, const char* value) {
                auto& feeder = *static_cast<Feeder*>(self);
                try {
                        feeder.take(section, name, value);
                } catch (...) {
                        feeder.failure_ = std::current_exception();
                }
                return 1;
        }

        bool next(char* buffer, std::size_t size) {
                // From 58 on inih asks for the rest of a line that fills its buffer, by a shorter one. There is none.
                if (buffer_size_ != 0 && size < buffer_size_) {
                        return false;
                }
                buffer_size_ = size;
                expect_answered();
                while (!failure_ && take_unambiguous_line()) {
                }
                if (rest_.empty() || failure_) {
                        return false;
                }
                const auto end = std::min(rest_.find('\n'), rest_.size());
                line_ = rest_.substr(0, end);
                rest_.remove_prefix(std::min(end + 1, rest_.size()));
                line_number_++;
                const auto fed = judge();
                if (fed.size() >= size) {
                        disagree(line_number_);
                        buffer[0] = '\0';
                        return true;
                }
                fed.copy(buffer, fed.size());
                buffer[fed.size()] = '\0';
                return true;
        }

        // Nearly all lines of a large policy: Key=Value in which no reader could find anything else. They go past inih,
        // which would take two thirds of the time.
        bool take_unambiguous_line() {
                const char* const begin = rest_.data();
                const char* const end = begin + rest_.size();
                const char* const equals = skip(begin, end, kKeyCharacters);
                if (equals == begin || equals == end || *equals != '=') {
                        return false;
                }
                const char* const stop = skip(equals + 1, end, kUnambiguous);
                const auto size = static_cast<std::size_t>(stop - begin);
                if (stop == equals + 1 || (stop != end && *stop != '\n') || size > kMaxIniLine) {
                        return false;
                }
                rest_.remove_prefix(std::min(size + 1, rest_.size()));
                line_number_++;
                sink_.entry(line_number_, {begin, equals}, {equals + 1, stop});
                return true;
        }

        // What inih is given for this line.
        std::string_view judge() {
                const auto kind = check_ini_line(line_, line_number_ == 1, sink_.section_form());
                if (!kind) {
                        sink_.error(line_number_, kind.error().message);
                        if (!looks_like_section()) {
                                return {};
                        }
                        // What follows must not count as part of the section before.
                        enter({}, 0);
                        return "[]";
                }
                switch (*kind) {
                case IniLine::kBlank:
                case IniLine::kComment:
                        return {};
                case IniLine::kSection:
                        enter(line_.substr(1, line_.size() - 2), count_lines_of_section(rest_));
                        break;
                case IniLine::kEntry:
                        awaited_ = true;
                        break;
                }
                return line_;
        }

        // Of a line that is refused: whether its author meant a section to begin.
        [[nodiscard]] bool looks_like_section() const {
                const auto start = line_.find_first_not_of(" \t\xef\xbb\xbf");
                return start != std::string_view::npos && line_[start] == '[';
        }

        void enter(std::string_view section, std::size_t lines) {
                section_ = section;
                sink_.section(line_number_, section, lines);
        }

        void take(std::string_view section, std::string_view key, std::string_view value) {
                const bool same = awaited_ && section == section_ && line_.size() == key.size() + 1 + value.size() &&
                                  line_.starts_with(key) && line_[key.size()] == '=' && line_.ends_with(value);
                awaited_ = false;
                if (same) {
                        sink_.entry(line_number_, key, value);
                } else {
                        disagree(line_number_);
                }
        }

        void expect_answered() {
                if (awaited_) {
                        awaited_ = false;
                        disagree(line_number_);
                }
        }

        // Cannot happen with the inih this was written for.
        void disagree(unsigned line) {
                sink_.error(line, "the INI library reads this line differently, write it anew");
        }

        std::string_view rest_;
        IniSink& sink_;
        std::string_view line_;
        std::string_view section_;
        unsigned line_number_ = 0;
        std::size_t buffer_size_ = 0;
        bool awaited_ = false;  // the line was an entry, and inih has not yet called back
        std::exception_ptr failure_;
};

}  // namespace

void read_ini(std::string_view text, IniSink& sink) {
        Feeder(text, sink).run();
}

}  // namespace sockbroker
