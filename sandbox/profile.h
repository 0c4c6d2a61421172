// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A seccomp profile as a value: which system calls a program may make, and with which arguments. What is not named is
// not allowed, and only `allow` has conditions, so that the order of lines never decides what is allowed. Pure: text to
// Profile in parse.h, Profile to BPF in compile.h.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace sockbroker::sandbox {

// From the laxest to the strictest.
enum class ActionKind : std::uint8_t {
        kAllow,
        kLog,    // allowed, and noted in the kernel's audit log
        kErrno,  // not carried out; the program sees errnum
        kKill,   // ends the whole process with SIGSYS
};

struct Action {
        ActionKind kind = ActionKind::kAllow;
        int errnum = 0;  // of kErrno

        bool operator==(const Action&) const = default;
        [[nodiscard]] std::string to_string() const;  // "allow", "errno EPERM", as a profile says it
};

using Arguments = std::array<std::uint64_t, 6>;

// The argument, of which only the bits of the mask count, is one of the values.
struct Condition {
        unsigned argument = 0;  // 0 to 5
        std::uint64_t mask = 0xffffffff;
        std::vector<std::uint64_t> values;  // sorted, within the mask
        std::string text;                   // as it was written

        [[nodiscard]] bool holds(const Arguments& arguments) const;
};

// One line for one call: what it does, and when. Without conditions: always.
struct Line {
        std::vector<Condition> conditions;  // all must hold; each argument at most once
        std::string file;
        unsigned number = 0;
        std::string comment;  // what followed # on the line
};

// All that a profile says of one call. kAllow: when all conditions of one of the lines hold. Any other action: always.
struct Rule {
        Action action;
        std::vector<Line> lines;

        [[nodiscard]] bool conditional() const;
        [[nodiscard]] bool holds(const Arguments& arguments) const;
};

struct Profile {
        std::string name;
        Action unnamed{ActionKind::kErrno, 38};          // of a call that the profile does not name; 38: ENOSYS
        Action arguments{ActionKind::kErrno, 1};         // of a call whose arguments no line allows; 1: EPERM
        Action foreign{ActionKind::kErrno, 38};          // of any call of another architecture, x32 included
        std::map<std::string, Rule, std::less<>> rules;  // by name of the call, those of other architectures too

        // What becomes of a call; the BPF that compile() makes decides the same.
        [[nodiscard]] Action decide(std::string_view call, const Arguments& arguments) const;
};

// The profile as it is in force, one fact a line, sorted: for people to read and for tests to compare.
[[nodiscard]] std::string dump(const Profile& profile);

}  // namespace sockbroker::sandbox
