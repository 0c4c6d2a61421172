// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The options of a command line, and what all programs here say of one that is wrong.
#pragma once

#include <getopt.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "broker/base/directories.h"
#include "broker/base/result.h"

namespace sockbroker {

// Rows of a table of options: one without a value, and one that wants one.
[[nodiscard]] constexpr option flag(const char* name, int code) {
        return {name, no_argument, nullptr, code};
}
[[nodiscard]] constexpr option valued(const char* name, int code) {
        return {name, required_argument, nullptr, code};
}

// All rows, and the end that getopt_long(3) wants.
template <std::size_t... Rows>
[[nodiscard]] constexpr auto table_of(const std::array<option, Rows>&... parts) {
        std::array<option, (Rows + ... + 1)> table{};
        auto* at = table.data();
        ((at = std::copy(parts.begin(), parts.end(), at)), ...);
        return table;
}

struct GivenOption {
        int code = 0;       // the letter of a short option, else `val` of the long one
        std::string name;   // "--runtime-dir", or "-h"; a long name that was cut short stands in full
        std::string value;  // empty: none, or an empty one
};

// Calls take() for each option, by getopt_long(3) with these two, the latter of table_of(). The index of the first
// argument that is no option; errors are an option that is unknown, ambiguous or lacks its value, and those of take().
// `short_options` begins as getopt(3) wants it: "+" where options end at the first argument, then ":".
[[nodiscard]] Result<int> read_options(int argc, char* const* argv, const char* short_options,
                                       std::span<const option> long_options,
                                       const std::function<Result<void>(const GivenOption&)>& take);

// The value as a directory: it must not be empty.
[[nodiscard]] Result<void> take_directory(std::string& target, const GivenOption& given);

// --netns, --config-dir, --runtime-dir, --bpffs and --state-dir: where the broker in question has its files. A program
// that has not all of them lists its own in its table, under these codes.
class DirectoryOptions {
public:
        enum Code : int { kNetns = 512, kConfigDir, kRuntimeDir, kBpffs, kStateDir };
        static constexpr std::array kRows{valued("netns", kNetns), valued("config-dir", kConfigDir),
                                          valued("runtime-dir", kRuntimeDir), valued("bpffs", kBpffs),
                                          valued("state-dir", kStateDir)};

        [[nodiscard]] static bool has(int code) { return code >= kNetns && code <= kStateDir; }
        [[nodiscard]] Result<void> take(const GivenOption& given);

        // Those that were named, and for the others those of the network namespace or the usual ones.
        [[nodiscard]] Directories directories() const;
        [[nodiscard]] const std::string& netns() const { return netns_; }            // empty: not given
        [[nodiscard]] const std::string& config_dir() const { return config_dir_; }  // empty: not given

private:
        Directories default_;
        Directories named_{.config_dirs = {}, .runtime_dir = {}, .bpffs = {}, .state_dir = {}};
        std::string netns_;
        std::string config_dir_;
};

}  // namespace sockbroker
