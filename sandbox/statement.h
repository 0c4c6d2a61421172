// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One line of a profile as a value. Pure, and strict: what is not understood to the last character is an error.
//
//   include NAME                        the profile NAME first
//   default: ACTION                     of calls that no line names          ACTION is allow, log, kill, errno NAME
//   arguments: ACTION                   of calls whose arguments no line allows
//   foreign: ACTION                     of calls of another architecture
//   ACTION CALL...                      of these calls, whatever their arguments
//   allow CALL CONDITION [and CONDITION]...
//
// CONDITION is argN == VALUE, argN in {VALUE, ...}, argN & MASK == VALUE, argN & MASK in {...}, or argN !& MASK. N is 0
// to
// 5. VALUE and MASK are numbers or names of constants, joined by |. argN is the lower half of the argument, which is
// all that the kernel takes of an int; argN:64 is all of it.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sandbox/profile.h"

namespace sockbroker::sandbox {

struct Include {
        std::string profile;
};

struct Setting {
        enum class Key : std::uint8_t { kUnnamed, kArguments, kForeign };
        Key key = Key::kUnnamed;
        Action action;
};

struct Calls {
        Action action;
        std::vector<std::string> calls;
        std::vector<Condition> conditions;
};

struct Statement {
        std::variant<std::monostate, Include, Setting, Calls> what;  // monostate: a blank line or a comment alone
        std::string comment;                                         // without # and the blanks around it
};

// `line` is without its new line. The error is a message for a person.
[[nodiscard]] std::expected<Statement, std::string> parse_statement(std::string_view line);

// [A-Za-z0-9][A-Za-z0-9_-]{0,39}: no path can be made of it.
[[nodiscard]] bool valid_profile_name(std::string_view name);

}  // namespace sockbroker::sandbox
