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
#include "broker/dataplane/compile/rule_memory.h"

namespace sockbroker {

// An address as the program compares it: its words as they lie in memory. IPv4 uses the low half of the first.
struct BucketKey {
        std::uint64_t high = 0;
        std::uint64_t low = 0;
        bool operator==(const BucketKey&) const = default;
};

[[nodiscard]] BucketKey key_of(const Address& address);
[[nodiscard]] BucketKey mask_of(Family family, unsigned length);  // what the program ands with

// Takes lines for the region and sets references[i] to where the rule of keys[i] belongs. False: there are not enough
// lines left.
[[nodiscard]] bool place_keys(RuleMemory& lines, Family family, unsigned length, std::span<const BucketKey> keys,
                              sb_length& description, std::span<std::uint32_t> references);

// Writes key and rule to their place. Lines are visited once: they lie all over the memory.
void write_bucket(RuleMemory& lines, Family family, unsigned length, std::uint32_t reference, const BucketKey& key,
                  const sb_rule& rule);

}  // namespace sockbroker
