// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The datagram socket: one queue for all senders, drained at once. Nobody is answered here; the journal is.
#pragma once

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/closer.h"
#include "broker/daemon/event.h"

namespace sockbroker {

class NotifyIntake {
public:
        [[nodiscard]] static Result<std::unique_ptr<NotifyIntake>> listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                                          Closer& closer);

private:
        NotifyIntake(OwnedFd fd, Broker& broker, Closer& closer)
                : broker_(broker), closer_(closer), fd_(std::move(fd)) {}
        void drain();
        [[nodiscard]] bool drain_some();  // false: there may be more

        Broker& broker_;
        Closer& closer_;
        OwnedFd fd_;
        OwnedSource source_;
        bool behind_ = false;  // more waits than one turn can do: then all others come first
};

}  // namespace sockbroker
