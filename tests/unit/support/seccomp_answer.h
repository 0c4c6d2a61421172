// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a compiled filter answers, in the numbers of the kernel and in the words of profiles.
#pragma once

#include <seccomp.h>

#include <algorithm>
#include <string>

#include "sandbox/evaluator.h"

namespace sockbroker::sandbox::test {

inline std::uint32_t answer(const Action& action) {
        switch (action.kind) {
        case ActionKind::kAllow:
                return SECCOMP_RET_ALLOW;
        case ActionKind::kLog:
                return SECCOMP_RET_LOG;
        case ActionKind::kErrno:
                return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(action.errnum);
        case ActionKind::kKill:
                break;
        }
        return SECCOMP_RET_KILL_PROCESS;
}

// Of a call of this architecture. 0 (the kernel's KILL_THREAD, which no profile can say) if the filter is broken.
inline std::uint32_t answer_of(const Filter& filter, int number, const Arguments& arguments) {
        seccomp_data data{.nr = number, .arch = seccomp_arch_native()};
        std::ranges::copy(arguments, data.args);
        return evaluate(filter, data).value_or(0);
}

inline std::string text_of(std::uint32_t answer) {
        switch (answer & SECCOMP_RET_ACTION_FULL) {
        case SECCOMP_RET_ALLOW:
                return "allow";
        case SECCOMP_RET_LOG:
                return "log";
        case SECCOMP_RET_KILL_PROCESS:
                return "kill";
        case SECCOMP_RET_ERRNO:
                return Action{ActionKind::kErrno, static_cast<int>(answer & SECCOMP_RET_DATA)}.to_string();
        default:
                return "broken";
        }
}

}  // namespace sockbroker::sandbox::test
