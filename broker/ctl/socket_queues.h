// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows of list, completed with what the kernel says of the sockets: {queue, queue_limit, drops}, null where it does not
// show the socket here, in another network namespace.
#pragma once

#include <map>
#include <utility>

#include "broker/client/queues.h"
#include "broker/ctl/render.h"

namespace sockbroker::ctl {

class SocketQueues {
public:
        // Asks the kernel at the first socket of each kind, four times at most.
        void add_to(Json& row);

private:
        std::map<std::pair<Protocol, int>, Queues> known_;
};

}  // namespace sockbroker::ctl
