// SPDX-License-Identifier: LGPL-2.1-or-later
//
// "Did you mean ...?": which of the known words somebody has probably meant by one that is not known. Pure.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace sockbroker {

// The word that takes the fewest edits (a letter more, less, another one, two swapped; upper and lower case are alike),
// where those are few for its length: one up to three letters, two up to eight, else three. None: nothing is near.
[[nodiscard]] std::optional<std::string_view> nearest(std::string_view word, std::span<const std::string_view> known);

}  // namespace sockbroker
