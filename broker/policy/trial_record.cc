// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The record of a trial: five lines, each to the byte as to_text() writes it. So a file that was cut short, or goes on,
// is not taken for a record.
#include "broker/policy/trial_record.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/policy/durable_file.h"
#include "broker/policy/read_files.h"
#include "broker/protocol/request.h"  // kMaxHoldUsec

namespace sockbroker {

namespace {

constexpr std::string_view kRecordFormat = "sockbroker-trial 1";
constexpr std::size_t kMaxRecordBytes = 512;  // a record has less than 200
constexpr std::size_t kHexDigits = 32;

// The value of the first line, which must have that key, and is taken off the text.
std::optional<std::string_view> take_value(std::string_view& text, std::string_view key) {
        const auto end = text.find('\n');
        if (end == std::string_view::npos || end <= key.size() || !text.starts_with(key) || text[key.size()] != ' ') {
                return std::nullopt;
        }
        const auto value = text.substr(key.size() + 1, end - key.size() - 1);
        text.remove_prefix(end + 1);
        return value;
}

std::optional<std::string> take_hex(std::string_view& text, std::string_view key) {
        const auto value = take_value(text, key);
        const auto is_hex = [](char one) { return (one >= '0' && one <= '9') || (one >= 'a' && one <= 'f'); };
        if (!value || value->size() != kHexDigits || !std::ranges::all_of(*value, is_hex)) {
                return std::nullopt;
        }
        return std::string(*value);
}

}  // namespace

std::string to_text(const TrialRecord& record) {
        return fmt::format("{}\npolicy {}\nbefore {}\nboot {}\nuntil {}\n", kRecordFormat, record.policy, record.before,
                           record.boot, record.until_usec);
}

std::optional<TrialRecord> parse_trial_record(std::string_view text) {
        const auto head = fmt::format("{}\n", kRecordFormat);
        if (!text.starts_with(head)) {
                return std::nullopt;
        }
        text.remove_prefix(head.size());
        auto policy = take_hex(text, "policy");
        auto before = take_hex(text, "before");
        auto boot = take_hex(text, "boot");
        const auto until = take_value(text, "until");
        const auto usec = until ? parse_number(*until, INT64_MAX) : std::nullopt;
        if (!policy || !before || !boot || !usec || !text.empty()) {
                return std::nullopt;
        }
        return TrialRecord{.policy = std::move(*policy),
                           .before = std::move(*before),
                           .boot = std::move(*boot),
                           .until_usec = static_cast<std::int64_t>(*usec)};
}

bool is_over(const TrialRecord& record, std::string_view boot, std::int64_t now_usec) {
        return record.boot != boot || boot == kUnknownBoot || record.until_usec <= now_usec ||
               record.until_usec - now_usec > static_cast<std::int64_t>(kMaxHoldUsec);
}

Result<std::optional<TrialRecord>> read_trial_record(const std::string& path) {
        const auto text = read_whole_file(path, kMaxRecordBytes);
        if (!text && text.error().errnum == ENOENT) {
                return std::nullopt;
        }
        const auto ignored = [&](const Error& why) {
                return fail(why.errnum, fmt::format("the record of a policy on trial in {} is ignored, reload the "
                                                    "policy to replace it ({})",
                                                    path, why.message));
        };
        if (!text) {
                return ignored(text.error());
        }
        auto record = parse_trial_record(*text);
        if (!record) {
                return ignored({0, "it is damaged"});
        }
        return record;
}

Result<void> put_trial_record(const std::string& path, const std::optional<TrialRecord>& record) {
        const auto done =
                record ? replace_file(path, [&](const AppendText& append) { return append(to_text(*record)); })
                       : remove_file(path);
        if (done) {
                return {};
        }
        const auto& [errnum, step] = done.error();
        return record ? fail(errnum, fmt::format("cannot note in {} that the policy is on trial, which a restart of "
                                                 "the broker would forget ({})",
                                                 path, step))
                      : fail(errnum, fmt::format("cannot remove {}, by which a restart of the broker may go back to an "
                                                 "older policy ({})",
                                                 path, step));
}

}  // namespace sockbroker
