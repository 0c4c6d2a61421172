// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See render.h.
#include "broker/ctl/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <ranges>

#include "broker/base/printable.h"

namespace sockbroker::ctl {

namespace {

constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kNormal = "\x1b[0m";

// Characters, not bytes: bytes of UTF-8 that do not continue one.
std::size_t width(std::string_view text) {
        return static_cast<std::size_t>(
                std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// Printable ASCII, as a broker of this version sends it.
bool is_plain(std::string_view text) {
        return std::ranges::all_of(text, [](char c) { return 0x20 <= c && c < 0x7f; });
}

// To that many characters, the last of them an ellipsis if any is left out.
std::string cut(std::string_view text, std::size_t to) {
        if (width(text) <= to) {
                return std::string(text);
        }
        std::size_t at = 0;
        for (std::size_t shown = 0; at < text.size() && shown + 1 < to; shown++) {
                for (at++; at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;) {
                        at++;
                }
        }
        return std::string(text.substr(0, at)) + "…";
}

std::string padded(std::string_view text, std::size_t to, bool right) {
        const std::string space(to - std::min(to, width(text)), ' ');
        return right ? space + std::string(text) : std::string(text) + space;
}

}  // namespace

std::optional<Json> parse_row(std::string_view line) {
        Json row = Json::parse(line, nullptr, false);
        if (!row.is_object()) {
                return std::nullopt;
        }
        return row;
}

std::optional<std::string_view> quick_field(std::string_view line, std::string_view field) {
        // Within a string a quote has a backslash before it: between { or , and : this is a key and nothing else.
        auto at = line.find(field);
        while (at != std::string_view::npos &&
               (at < 2 || line[at - 1] != '"' || (line[at - 2] != ',' && line[at - 2] != '{') ||
                !line.substr(at + field.size()).starts_with("\":"))) {
                at = line.find(field, at + 1);
        }
        if (at == std::string_view::npos) {
                return std::nullopt;
        }
        const auto value = line.substr(at + field.size() + 2);
        if (value.starts_with("null")) {
                return std::string_view();
        }
        if (!value.starts_with('"')) {
                const auto digits = value.substr(0, value.find_first_not_of("0123456789"));
                return digits.empty() ? std::nullopt : std::optional(digits);
        }
        const auto end = value.find('"', 1);
        const auto text = value.substr(1, end == std::string_view::npos ? end : end - 1);
        return end != std::string_view::npos && is_plain(text) && text.find('\\') == std::string_view::npos
                       ? std::optional(text)
                       : std::nullopt;
}

std::string cell(const Json& row, const char* field, std::string_view none) {
        const auto at = row.find(field);
        if (at == row.end() || at->is_null()) {
                return std::string(none);
        }
        return at->is_string() ? printable(at->get_ref<const std::string&>()) : at->dump();
}

std::string format_time(std::int64_t usec) {
        const std::time_t seconds = usec / 1'000'000;
        std::tm parts = {};
        if (usec <= 0 || ::localtime_r(&seconds, &parts) == nullptr) {
                return "-";
        }
        char text[64];
        const std::size_t size = std::strftime(text, sizeof text, "%a %Y-%m-%d %H:%M:%S %Z", &parts);
        return {text, size};
}

std::string count(std::uint64_t number, std::string_view noun) {
        return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

std::string dump(const Json& value, JsonMode mode) {
        // Bytes that are no UTF-8 (a file's name) must not end the program, and none that a terminal obeys reaches one.
        const auto replace = Json::error_handler_t::replace;
        return (mode == JsonMode::kPretty ? value.dump(1, '\t', true, replace) : value.dump(-1, ' ', true, replace)) +
               "\n";
}

std::string to_line(const Diagnostic& diagnostic) {
        if (diagnostic.severity == Severity::kError) {
                return printable(diagnostic.to_string());
        }
        Diagnostic marked = diagnostic;
        marked.message = "warning: " + marked.message;
        return printable(marked.to_string());
}

Json to_json(const Diagnostic& diagnostic) {
        return {{"file", diagnostic.file},
                {"line", diagnostic.line},
                {"severity", diagnostic.severity == Severity::kError ? "error" : "warning"},
                {"message", diagnostic.message}};
}

Diagnostic diagnostic_of(const Json& row) {
        const auto line = row.find("line");
        return {.file = cell(row, "file"),
                .line = line != row.end() && line->is_number_unsigned() ? line->get<unsigned>() : 0,
                .severity = cell(row, "severity") == "warning" ? Severity::kWarning : Severity::kError,
                .message = cell(row, "message")};
}

void JsonArray::add_line(std::string_view line) {
        if (mode_ == JsonMode::kPretty || !is_plain(line)) {
                if (const std::optional<Json> row = parse_row(line)) {
                        add(*row);
                        return;
                }
        }
        output_.write(open_ ? "," : "[");
        open_ = true;
        output_.write(line);
}

void JsonArray::add(const Json& value) {
        std::string text = dump(value, mode_);
        text.pop_back();
        if (mode_ == JsonMode::kPretty) {
                // One level deeper than alone; new lines inside strings are escaped in JSON.
                std::string indented = "\n\t";
                for (const char c : text) {
                        indented += c;
                        if (c == '\n') {
                                indented += '\t';
                        }
                }
                text = std::move(indented);
        }
        output_.write(open_ ? "," : "[");
        open_ = true;
        output_.write(text);
}

void JsonArray::close() {
        if (!open_) {
                output_.write("[]\n");
        } else {
                output_.write(mode_ == JsonMode::kPretty ? "\n]\n" : "]\n");
        }
}

Table::Table(std::vector<Column> columns)
        : columns_(std::move(columns)), widest_(columns_.size()), told_(columns_.size()) {}

bool Table::is_shown(std::size_t column) const {
        return !columns_[column].optional || told_[column];
}

void Table::add(std::vector<std::string> cells) {
        cells.resize(columns_.size());
        for (std::size_t i = 0; i < cells.size(); i++) {
                widest_[i] = std::max(widest_[i], width(cells[i]));
                told_[i] = told_[i] || cells[i] != "-";
                recent_ += cells[i];
                recent_ += '\0';
        }
        rows_++;
        if (recent_.size() < kInMemory || in_memory_) {
                return;
        }
        if (!file_) {
                file_.reset(std::tmpfile());
                in_memory_ = !file_;
        }
        if (file_) {
                failed_ = std::fwrite(recent_.data(), 1, recent_.size(), file_.get()) != recent_.size() || failed_;
                recent_.clear();
        }
}

// The widest text gives way first; numbers and what is short already stay.
std::vector<std::size_t> Table::widths(bool legend, std::size_t columns) const {
        constexpr std::size_t kLeast = 8;
        std::vector<std::size_t> widths;
        widths.reserve(columns_.size());
        for (std::size_t i = 0; i < columns_.size(); ++i) {
                widths.push_back(
                        !is_shown(i) ? 0 : std::max(widest_[i], legend ? width(columns_[i].header) : std::size_t{0}));
        }
        const auto shown = static_cast<std::size_t>(std::ranges::count_if(
                std::views::iota(std::size_t{0}, columns_.size()), [&](std::size_t i) { return is_shown(i); }));
        const auto total = std::accumulate(widths.begin(), widths.end(), std::max<std::size_t>(shown, 1) - 1);
        for (auto over = columns == 0 || total < columns ? 0 : total - columns; over > 0; over--) {
                std::size_t* widest = nullptr;
                for (std::size_t i = 0; i < columns_.size(); ++i) {
                        if (!columns_[i].right && widths[i] > (widest == nullptr ? kLeast : *widest)) {
                                widest = &widths[i];
                        }
                }
                if (widest == nullptr) {
                        break;
                }
                --*widest;
        }
        return widths;
}

bool Table::each_cell(const std::function<void(std::string_view cell)>& take) {
        const auto of = [&](std::string_view cells) {
                for (; !cells.empty(); cells.remove_prefix(cells.find('\0') + 1)) {
                        take(cells.substr(0, cells.find('\0')));
                }
        };
        if (file_) {
                failed_ = std::fflush(file_.get()) != 0 || std::fseek(file_.get(), 0, SEEK_SET) != 0 || failed_;
                char* buffer = nullptr;
                std::size_t room = 0;
                while (!failed_) {
                        const auto size = ::getdelim(&buffer, &room, '\0', file_.get());
                        if (size <= 0) {
                                break;
                        }
                        take({buffer, static_cast<std::size_t>(size) - 1});
                }
                std::free(buffer);
                failed_ = std::ferror(file_.get()) != 0 || failed_;
        }
        of(recent_);
        return !failed_;
}

bool Table::each_line(bool legend, bool colour, std::size_t columns,
                      const std::function<void(std::string_view line)>& take) {
        const auto widths = this->widths(legend, columns);
        std::string line;
        const auto add_cell = [&](std::size_t i, std::string_view text) {
                if (is_shown(i)) {
                        line += line.empty() ? "" : " ";
                        line += padded(cut(text, widths[i]), widths[i], columns_[i].right);
                }
        };
        if (legend) {
                for (std::size_t i = 0; i < columns_.size(); i++) {
                        add_cell(i, columns_[i].header);
                }
                line.erase(line.find_last_not_of(' ') + 1);
                take(colour ? fmt::format("{}{}{}\n", kBold, line, kNormal) : line + "\n");
                line.clear();
        }
        std::size_t at = 0;
        return each_cell([&](std::string_view text) {
                add_cell(at, text);
                if (++at < columns_.size()) {
                        return;
                }
                line.erase(line.find_last_not_of(' ') + 1);
                line += '\n';
                take(line);
                line.clear();
                at = 0;
        });
}

std::string Table::render(bool legend, bool colour, std::size_t columns) {
        std::string result;
        (void)each_line(legend, colour, columns, [&](std::string_view line) { result += line; });
        return result;
}

}  // namespace sockbroker::ctl
