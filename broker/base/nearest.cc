// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/nearest.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace sockbroker {

namespace {

constexpr std::size_t kLongest = 32;  // what is longer resembles no key, verb or option
using Row = std::array<std::size_t, kLongest + 1>;

char lower(char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Optimal string alignment, by three rows of its table.
std::size_t edits(std::string_view one, std::string_view other) {
        Row before{}, last{}, row{};
        for (std::size_t j = 0; j <= other.size(); j++) {
                last[j] = j;
        }
        for (std::size_t i = 1; i <= one.size(); i++) {
                row[0] = i;
                for (std::size_t j = 1; j <= other.size(); j++) {
                        const char a = lower(one[i - 1]), b = lower(other[j - 1]);
                        row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a == b ? 0 : 1)});
                        if (i > 1 && j > 1 && a == lower(other[j - 2]) && lower(one[i - 2]) == b) {
                                row[j] = std::min(row[j], before[j - 2] + 1);
                        }
                }
                before = last;
                last = row;
        }
        return last[other.size()];
}

}  // namespace

std::optional<std::string_view> nearest(std::string_view word, std::span<const std::string_view> known) {
        if (word.empty() || word.size() > kLongest) {
                return std::nullopt;
        }
        std::size_t least = word.size() <= 3 ? 2 : word.size() <= 8 ? 3 : 4;  // one more than is near
        std::optional<std::string_view> result;
        for (const auto candidate : known) {
                if (candidate.size() > kLongest) {
                        continue;
                }
                if (const auto distance = edits(word, candidate); distance < least) {
                        least = distance;
                        result = candidate;
                }
        }
        return result;
}

}  // namespace sockbroker
