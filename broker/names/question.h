// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker asks the process that asks NSS, and how both go over a SOCK_SEQPACKET pair: one record each. Whoever
// reads one checks it as if it came from a stranger. Pure.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker {

enum class QuestionKind : std::uint8_t { kUser, kGroup, kNameOfUser, kNameOfGroup };

struct Question {
        QuestionKind kind = QuestionKind::kUser;
        std::string text;  // a name, or a number in decimal

        auto operator<=>(const Question&) const = default;
};

enum class Outcome : std::uint8_t {
        kNoAnswer,  // try again, unavailable
        kAbsent,
        kFound,
};

struct NssAnswer {
        Outcome outcome = Outcome::kNoAnswer;
        std::uint32_t id = 0;  // of kUser and kGroup
        std::string name;      // of the others
};

inline constexpr std::size_t kMaxQuestionText = 1024;  // no account has a longer name
inline constexpr std::size_t kMaxNamesRecord = kMaxQuestionText + 64;

// To the process: a question with a number of its own, or the order to let another process take its place, since too
// many of its threads do not come back.
struct ToNames {
        bool replace = false;
        std::uint64_t number = 0;
        Question question;
};
// From it: that it is there (at first, and again in place of one that has ended), or an answer.
struct FromNames {
        bool here = false;
        std::uint64_t number = 0;
        NssAnswer answer;
};

[[nodiscard]] std::string encode(const ToNames& record);
[[nodiscard]] std::string encode(const FromNames& record);
[[nodiscard]] std::optional<ToNames> decode_to_names(std::string_view record);
[[nodiscard]] std::optional<FromNames> decode_from_names(std::string_view record);

}  // namespace sockbroker
