// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The datagram socket: one queue for all senders, drained at once. Nobody is answered here; the journal is. Where a
// message has to wait for a name, those of the same user that came after it wait too, so that a barrier says what it
// means, and all others go on.
#pragma once

#include <sys/types.h>

#include <deque>
#include <map>
#include <memory>

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
        // Messages behind one that waits, and their descriptors: of one user, and in all. Beyond, they are dropped.
        static constexpr std::size_t kMaxBehindOfUser = 256;
        static constexpr std::size_t kMaxBehind = 4096;

        NotifyIntake(OwnedFd fd, Broker& broker, Closer& closer)
                : broker_(broker), closer_(closer), fd_(std::move(fd)) {}
        void drain();
        [[nodiscard]] bool drain_some();  // false: there may be more
        void take(MessagePtr message);
        void handle(uid_t uid, const MessagePtr& message);
        void go_on(uid_t uid);

        struct Behind {
                std::deque<MessagePtr> messages;
                std::size_t cost = 0;
        };

        Broker& broker_;
        Closer& closer_;
        OwnedFd fd_;
        OwnedSource source_;
        bool behind_ = false;              // more waits than one turn can do: then all others come first
        std::map<uid_t, Behind> waiting_;  // users of whom a message waits
        std::size_t cost_ = 0;             // of all that are behind
        std::shared_ptr<NotifyIntake*> self_ = std::make_shared<NotifyIntake*>(this);
};

}  // namespace sockbroker
