// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A digest to tell texts apart at a glance: the same text has the same on every machine. Not for anything that an
// attacker could gain by a collision.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sockbroker {

class Digest {
public:
        // One part after another; where one ends counts.
        void add(std::string_view part);
        [[nodiscard]] std::string text() const;  // 32 hex digits

private:
        std::uint64_t high_ = 0x243f6a8885a308d3U;  // of the digits of pi
        std::uint64_t low_ = 0x13198a2e03707344U;
};

}  // namespace sockbroker
