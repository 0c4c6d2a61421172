// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See socket_queues.h.
#include "broker/ctl/socket_queues.h"

#include <sys/socket.h>

#include <cstdlib>

namespace sockbroker::ctl {

void SocketQueues::add_to(Json& row) {
        const auto protocol = parse_protocol(cell(row, "protocol"));
        for (const char* name : {"queue", "queue_limit", "drops"}) {
                row[name] = nullptr;
        }
        if (!protocol) {
                return;
        }
        const std::pair key(*protocol, cell(row, "family") == "ipv4" ? AF_INET : AF_INET6);
        const auto [queues, fresh] = known_.try_emplace(key);
        if (fresh) {
                queues->second = read_queues(key.first, key.second).value_or(Queues{});
        }
        const auto queue = queues->second.find(std::strtoull(cell(row, "cookie").c_str(), nullptr, 16));
        if (queue == queues->second.end()) {
                return;
        }
        row["queue"] = queue->second.depth;
        if (*protocol == Protocol::kTcp) {
                row["queue_limit"] = queue->second.limit;
        }
        if (const auto drops = queue->second.drops) {
                row["drops"] = *drops;
        }
}

}  // namespace sockbroker::ctl
