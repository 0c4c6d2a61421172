// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/digest.h"

#include <endian.h>

#include <cstring>

#include <fmt/format.h>

namespace sockbroker {

namespace {

std::uint64_t mixed(std::uint64_t value) {
        value = (value ^ value >> 32) * 0xd6e8feb86659fd93U;
        value = (value ^ value >> 32) * 0xd6e8feb86659fd93U;
        return value ^ value >> 32;
}

// Little endian on every machine.
std::uint64_t word_of(std::string_view bytes) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data(), bytes.size());
        return le64toh(word);
}

}  // namespace

void Digest::add(std::string_view part) {
        const auto take = [&](std::uint64_t word) {
                high_ = mixed(high_ ^ word) + low_;
                low_ = mixed(low_ + word * 0x9e3779b97f4a7c15U) ^ high_;
        };
        take(part.size());
        for (; part.size() >= sizeof(std::uint64_t); part.remove_prefix(sizeof(std::uint64_t))) {
                take(word_of(part.substr(0, sizeof(std::uint64_t))));
        }
        if (!part.empty()) {
                take(word_of(part));
        }
}

std::string Digest::text() const {
        return fmt::format("{:016x}{:016x}", mixed(high_), mixed(low_ ^ high_));
}

}  // namespace sockbroker
