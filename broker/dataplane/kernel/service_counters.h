// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The kernel counts for each service on each processor; here they are added up.
#pragma once

#include "broker/dataplane/dataplane.h"

namespace sockbroker {

// `map`: the per-CPU map of counters. All 0 where it has none for this service. `crossed` is not in this map and stays
// 0.
[[nodiscard]] ServiceCounters read_counters(int map, ServiceId id, int cpus);

}  // namespace sockbroker
