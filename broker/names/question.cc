// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/names/question.h"

#include <cstring>

namespace sockbroker {

namespace {

struct Header {
        std::uint64_t number = 0;
        std::uint32_t id = 0;
        std::uint8_t order = 0;  // 1: not a question or an answer
        std::uint8_t kind = 0;
        std::uint16_t unused = 0;
};
static_assert(sizeof(Header) == 16);

std::string record_of(const Header& header, std::string_view text) {
        std::string record(sizeof header, '\0');
        std::memcpy(record.data(), &header, sizeof header);
        return record.append(text.substr(0, kMaxQuestionText));
}

std::optional<Header> header_of(std::string_view record) {
        Header header;
        if (record.size() < sizeof header || record.size() > sizeof header + kMaxQuestionText) {
                return std::nullopt;
        }
        std::memcpy(&header, record.data(), sizeof header);
        return header;
}

}  // namespace

std::string encode(const ToNames& record) {
        return record_of({.number = record.number,
                          .order = static_cast<std::uint8_t>(record.replace),
                          .kind = static_cast<std::uint8_t>(record.question.kind)},
                         record.question.text);
}

std::string encode(const FromNames& record) {
        return record_of({.number = record.number,
                          .id = record.answer.id,
                          .order = static_cast<std::uint8_t>(record.here),
                          .kind = static_cast<std::uint8_t>(record.answer.outcome)},
                         record.answer.name);
}

std::optional<ToNames> decode_to_names(std::string_view record) {
        const auto header = header_of(record);
        if (!header || header->kind > static_cast<std::uint8_t>(QuestionKind::kNameOfGroup)) {
                return std::nullopt;
        }
        return ToNames{header->order == 1,
                       header->number,
                       {static_cast<QuestionKind>(header->kind), std::string(record.substr(sizeof *header))}};
}

std::optional<FromNames> decode_from_names(std::string_view record) {
        const auto header = header_of(record);
        if (!header || header->kind > static_cast<std::uint8_t>(Outcome::kFound)) {
                return std::nullopt;
        }
        return FromNames{header->order == 1,
                         header->number,
                         {static_cast<Outcome>(header->kind), header->id, std::string(record.substr(sizeof *header))}};
}

}  // namespace sockbroker
