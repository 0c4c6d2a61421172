// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The hashed region of one prefix length (cuckoo hashing): finds a size and a seed with which every key stands in one
// of its two lines, so that the program looks at two lines at most whatever the prefixes are. Knows nothing of rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bpf/layout.h"
#include "broker/base/net.h"

namespace sockbroker {

// An address as the program compares it: its words as they lie in memory. IPv4 uses the low half of the first.
struct Key {
        std::uint64_t high = 0;
        std::uint64_t low = 0;
        bool operator==(const Key&) const = default;
};

[[nodiscard]] Key key_of(const Address& address);
[[nodiscard]] Key mask_of(Family family, unsigned length);  // what the program ands with

// Appends the region to `lines`, keys written and places marked as used, and fills `references` with the place of each
// key's rule. False: it would need more than `max_lines` lines in all; `lines` is then to be thrown away.
[[nodiscard]] bool place_keys(std::vector<sb_line>& lines, std::size_t max_lines, Family family, unsigned length,
                              std::span<const Key> keys, sb_length& description, std::span<std::uint32_t> references);

}  // namespace sockbroker
