// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The control socket: connections that send a request and read its answer, one at a time each. A peer that floods,
// hangs or never reads harms itself only: connections are counted per uid, answers are made as they are read
// and in turns, a reader that is idle for five seconds is dropped, and no descriptor of a peer's is closed where that
// may wait.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/closer.h"
#include "broker/daemon/event.h"
#include "broker/daemon/turns.h"

namespace sockbroker {

class ControlServer {
public:
        // And no more than half of the descriptors that the process may have: the others are for what messages carry.
        static constexpr std::size_t kMaxConnections = 512;
        static constexpr std::size_t kMaxConnectionsPerUid = 32;  // root: not counted
        static constexpr std::size_t kMaxRecordBytes = std::size_t{64} * 1024;
        static constexpr std::size_t kAcceptsPerTurn = 32;
        // However fast a peer reads: then all others have their turn before its answer goes on.
        static constexpr std::size_t kRecordsPerTurn = 2;
        static constexpr std::uint64_t kIdleReaderUsec = 5'000'000;

        // `on_unloaded` is called after the answer to an unload was sent.
        [[nodiscard]] static Result<std::unique_ptr<ControlServer>> listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                                           Closer& closer,
                                                                           std::function<void()> on_unloaded);
        ~ControlServer();

private:
        class Connection;

        ControlServer(sd_event* event, OwnedFd fd, Broker& broker, Closer& closer, std::function<void()> on_unloaded);
        void accept_some();
        void admit(OwnedFd fd);
        [[nodiscard]] Connection* most_dispensable() const;
        void drop(Connection* connection);

        sd_event* event_;
        Broker& broker_;
        Closer& closer_;
        std::function<void()> on_unloaded_;
        OwnedFd fd_;
        OwnedFd reserve_;  // given up for a moment when descriptors run out, so that a peer can be turned away
        OwnedSource source_;
        std::map<Connection*, std::unique_ptr<Connection>> connections_;
        std::size_t max_connections_ = kMaxConnections;
        std::map<uid_t, std::size_t> per_uid_;
        Turns shares_;             // of the loop's time
        std::uint64_t turns_ = 0;  // of all connections: a clock that says who was silent for longest
};

}  // namespace sockbroker
