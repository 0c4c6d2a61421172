// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes what bpf/port_table.h searches. Knows nothing of rules.
#pragma once

#include <cstdint>
#include <span>

#include "broker/dataplane/compile/rule_memory.h"

namespace sockbroker {

// `starts`: the first port of each interval, ascending, the first is 0; `references`: what to try for it. Returns the
// line in which the table begins.
std::uint32_t write_port_table(RuleMemory& lines, std::span<const std::uint16_t> starts,
                               std::span<const std::uint32_t> references);

}  // namespace sockbroker
