// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What must hold of parse_answer() for whatever a hand writes, in one place for the fuzzer and for the mutation test of
// the unit suite.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>

#include "broker/hands/wire.h"

namespace sockbroker::test {

// Why the property is broken; empty if it holds.
inline std::string broken_answer_property(std::span<const std::byte> bytes) {
        const auto parsed = hands::parse_answer(bytes);
        if (parsed.wrong || !parsed.answer) {
                return parsed.used != 0 ? "bytes of no answer were used" : "";
        }
        const auto& answer = *parsed.answer;
        if (parsed.used < sizeof(hands::Answer) || parsed.used > bytes.size() || parsed.used > hands::kMaxAnswer) {
                return "an answer of impossible size";
        }
        if (answer.count > kMaxMessageFds || answer.found.size() > answer.count || answer.errnum < 0) {
                return "more than a message carries";
        }
        if (!answer.found.empty() && answer.kind != hands::AnswerKind::kDone) {
                return "facts that nobody asked for";
        }
        std::size_t at = sizeof(hands::Answer);
        for (const auto& found : answer.found) {
                const auto wire = hands::to_wire(found);
                if (std::memcmp(&wire, bytes.data() + at, sizeof wire) != 0) {
                        return "no round trip";
                }
                at += sizeof wire;
        }
        // Cut anywhere, it is not there yet.
        if (hands::parse_answer(bytes.first(parsed.used - 1)).answer) {
                return "an answer that is not complete";
        }
        return {};
}

}  // namespace sockbroker::test
