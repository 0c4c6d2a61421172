// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The input of the compiler: an unordered list of rules. compile_into() turns it into the bytes of one
// generation of the kernel's rule memory. Pure; the precedence of the rules is decided here and nowhere else.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"

namespace sockbroker {

using ServiceId = std::uint32_t;  // from 1; 0: none

enum class Absent : std::uint8_t { kRefuse, kPass, kNext };

struct Rule {
        Protocol protocol = Protocol::kTcp;
        Prefix prefix;
        PortRange ports;
        std::optional<Prefix> source;  // clients of this prefix only
        std::uint32_t ifindex = 0;     // packets that came in here only; 0: any
        ServiceId service = 0;
        Absent absent = Absent::kRefuse;
        std::uint32_t counter = 0;  // of its own, from Dataplane::assign_counters(); 0: none
};

}  // namespace sockbroker
