// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The RESULT= codes of the control socket, which are also SOCKBROKER_RESULT= in the journal. Their
// remedies stand in docs/protocol.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sockbroker {

enum class ResultCode : std::uint8_t {
        kOk,
        kMalformed,
        kUnknownService,
        kAmbiguous,
        kNotPermitted,
        kWrongSocket,
        kNotListening,
        kForeignNetns,
        kMptcp,
        kQuota,
        kBusy,
        kNotHeld,
        kRateLimited,
        kNotRoot,
        kInternal,
};

[[nodiscard]] std::string_view to_string(ResultCode code);  // "ok", "unknown-service"
[[nodiscard]] int to_errno(ResultCode code);                // what ERRNO= carries; 0 for ok

// Why a peer's request was refused: costs that peer its request and nothing else.
struct Refusal {
        ResultCode code = ResultCode::kInternal;
        std::string message;  // for a person: what was asked, why not, what to do
        std::string rule;     // file:line of the policy that decided, empty where none did
};

// RESULT=, ERRNO= and MESSAGE= lines, then a WARNING= line for each, as control answers. Control characters in them
// become spaces.
[[nodiscard]] std::string format_result(ResultCode code, std::string_view message,
                                        const std::vector<std::string>& warnings = {});

}  // namespace sockbroker
