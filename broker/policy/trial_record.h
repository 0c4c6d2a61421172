// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What outlives the broker of a policy on trial (reload --confirm=): which one it is, and until when. The policy that
// comes back is not in it: that is the copy of the policy last taken, which a trial does not replace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "broker/base/result.h"

namespace sockbroker {

struct TrialRecord {
        std::string policy;           // digest of the one on trial
        std::string before;           // and of the one that comes back
        std::string boot;             // id of the boot in which it began, 32 hex digits
        std::int64_t until_usec = 0;  // CLOCK_MONOTONIC of that boot

        bool operator==(const TrialRecord&) const = default;
};

// In place of an id that could not be asked for. No boot is that one.
inline constexpr std::string_view kUnknownBoot = "00000000000000000000000000000000";

[[nodiscard]] std::string to_text(const TrialRecord& record);
// None: it is damaged, or what this version does not know. Pure.
[[nodiscard]] std::optional<TrialRecord> parse_trial_record(std::string_view text);

// Whether it was not kept in time. Of another boot it was not: how much time has passed since is not known. Nor is it
// where more is left of it than a trial can have.
[[nodiscard]] bool is_over(const TrialRecord& record, std::string_view boot, std::int64_t now_usec);

// None: there is no file. One that is damaged is an error that says what to do.
[[nodiscard]] Result<std::optional<TrialRecord>> read_trial_record(const std::string& path);
// None: removes the file.
[[nodiscard]] Result<void> put_trial_record(const std::string& path, const std::optional<TrialRecord>& record);

}  // namespace sockbroker
