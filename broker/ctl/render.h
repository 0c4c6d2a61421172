// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows for people and for programs. The broker sends each row as one JSON object a line: JSON output passes them on as
// they come, a table collects them, since its columns are as wide as their widest cell. Pure but for Output.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/ctl/output.h"
#include "broker/policy/parse.h"

namespace sockbroker::ctl {

using Json = nlohmann::ordered_json;

// One row as it came; none: not a JSON object.
[[nodiscard]] std::optional<Json> parse_row(std::string_view line);

// The text, number or null (empty) of a top-level field in a row as the broker writes it, without parsing the whole;
// none: it takes that.
[[nodiscard]] std::optional<std::string_view> quick_field(std::string_view line, std::string_view field);

// A field as a person reads it: printable, numbers in decimal, `none` where it is null or missing.
[[nodiscard]] std::string cell(const Json& row, const char* field, std::string_view none = "-");

// "Mon 2024-03-04 05:06:07 UTC" in local time, as systemctl writes it; "-" for 0.
[[nodiscard]] std::string format_time(std::int64_t usec);

// "1 socket", "2 sockets"
[[nodiscard]] std::string count(std::uint64_t number, std::string_view noun);

// One value, as --json= asks for it, with a new line.
[[nodiscard]] std::string dump(const Json& value, JsonMode mode);

// "file:line: message" or "file:line: warning: message", without new line
[[nodiscard]] std::string to_line(const Diagnostic& diagnostic);
[[nodiscard]] Json to_json(const Diagnostic& diagnostic);
[[nodiscard]] Diagnostic diagnostic_of(const Json& row);  // back again, printable

// An array whose elements are written as they come. Nothing is written before the first of them.
class JsonArray {
public:
        JsonArray(Output& output, JsonMode mode) : output_(output), mode_(mode) {}

        void add_line(std::string_view line);  // a JSON object as text
        void add(const Json& value);
        void close();  // an array that is not closed tells a program that rows are missing

private:
        Output& output_;
        JsonMode mode_;
        bool open_ = false;
};

// Keeps little in memory however many rows there are: its columns are as wide as their widest cell, so rows wait for
// the last one, in an unlinked file.
class Table {
public:
        struct Column {
                std::string header;
                bool right = false;     // numbers
                bool optional = false;  // left out where every cell is "-"
        };

        explicit Table(std::vector<Column> columns);

        void add(std::vector<std::string> cells);  // printable
        [[nodiscard]] std::size_t rows() const { return rows_; }
        // Without trailing white space; the header, in bold where there are colours, only with a legend. At most so
        // many columns wide, if that can be had by cutting text that ends in an ellipsis then; 0: as wide as it is.
        // A line at a time. False: rows that were put aside cannot be read again.
        [[nodiscard]] bool each_line(bool legend, bool colour, std::size_t columns,
                                     const std::function<void(std::string_view line)>& take);
        // All of it.
        [[nodiscard]] std::string render(bool legend, bool colour, std::size_t columns = 0);

private:
        struct Close {
                void operator()(std::FILE* file) const { std::fclose(file); }
        };
        static constexpr std::size_t kInMemory = std::size_t{1} << 20;

        [[nodiscard]] std::vector<std::size_t> widths(bool legend, std::size_t columns) const;
        [[nodiscard]] bool is_shown(std::size_t column) const;
        // Each cell, in the order in which they came.
        [[nodiscard]] bool each_cell(const std::function<void(std::string_view cell)>& take);

        std::vector<Column> columns_;
        std::vector<std::size_t> widest_;  // of the cells
        std::vector<bool> told_;           // whether a column has another cell than "-"
        std::size_t rows_ = 0;
        std::string recent_;  // cells, each ended by a NUL, that are not in the file
        std::unique_ptr<std::FILE, Close> file_;
        bool in_memory_ = false;  // there can be no file
        bool failed_ = false;
};

}  // namespace sockbroker::ctl
