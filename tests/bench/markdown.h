// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A report of lookup_bench as the tables of docs/performance.md: the goals beside what was measured, look-ups, loads.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace sockbroker::bench {

// `report`: what --json writes.
[[nodiscard]] std::string to_markdown(const nlohmann::ordered_json& report);

}  // namespace sockbroker::bench
