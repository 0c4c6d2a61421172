// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/service_counters.h"

#include <bpf/bpf.h>

#include <cstddef>
#include <vector>

#include "bpf/layout.h"

namespace sockbroker {

ServiceCounters read_counters(int map, ServiceId id, int cpus) {
        ServiceCounters sum;
        std::vector<sb_counters> each(static_cast<std::size_t>(cpus));
        if (bpf_map_lookup_elem(map, &id, each.data()) != 0) {
                return sum;
        }
        for (const sb_counters& cpu : each) {
                sum.lookups += cpu.lookups;
                sum.assigned += cpu.assigned;
                sum.no_socket += cpu.no_socket;
                sum.error_protocol += cpu.error_protocol;
                sum.error_family += cpu.error_family;
                sum.error_state += cpu.error_state;
                sum.error_exists += cpu.error_exists;
                sum.error_other += cpu.error_other;
        }
        return sum;
}

}  // namespace sockbroker
