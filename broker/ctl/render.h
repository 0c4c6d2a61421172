// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows for people and for programs. The broker sends each row as one JSON object a line: JSON output passes them on as
// they come, a table collects them, since its columns are as wide as their widest cell. Pure but for Output.
#pragma once

#include <cstdint>
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

class Table {
public:
        struct Column {
                std::string header;
                bool right = false;  // numbers
        };

        explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

        void add(std::vector<std::string> cells);
        [[nodiscard]] std::size_t rows() const { return rows_.size(); }
        // Without trailing white space; the header, in bold where there are colours, only with a legend. At most so
        // many columns wide, if that can be had by cutting text that ends in an ellipsis then; 0: as wide as it is.
        [[nodiscard]] std::string render(bool legend, bool colour, std::size_t columns = 0) const;

private:
        [[nodiscard]] std::vector<std::size_t> widths(bool legend, std::size_t columns) const;

        std::vector<Column> columns_;
        std::vector<std::vector<std::string>> rows_;
};

}  // namespace sockbroker::ctl
