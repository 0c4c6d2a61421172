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
#include "broker/base/turns.h"
#include "broker/daemon/answer_records.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/fair_scheduler.h"
#include "broker/hands/crew.h"

namespace sockbroker {

class ControlServer {
public:
        // However fast a peer reads: then all others have their turn before its answer goes on. To make so much takes
        // about a millisecond.
        static constexpr std::size_t kBytesPerTurn = AnswerRecords::kMaxBytes / 2;
        static constexpr std::uint64_t kIdleReaderUsec = 5'000'000;

        // `on_unloaded` is called after the answer to an unload was sent, or could not be.
        ControlServer(sd_event* event, Broker& broker, hands::Crew& crew, std::function<void()> on_unloaded);
        ~ControlServer();
        ControlServer(const ControlServer&) = delete;
        ControlServer& operator=(const ControlServer&) = delete;

        // One that the door has accepted. Of the limits it keeps those by user, here is the one of all.
        void admit(hands::Connection accepted);
        // Before the broker ends: what those who monitor have not read yet, as far as there is room for it.
        void end_feeds();

private:
        class Connection;

        [[nodiscard]] Connection* most_dispensable() const;
        void drop(Connection* connection);
        void not_delivered(const Answer& answer) const;

        sd_event* event_;
        Broker& broker_;
        hands::Crew& crew_;
        std::function<void()> on_unloaded_;
        std::map<Connection*, std::unique_ptr<Connection>> connections_;
        std::size_t max_connections_ = 0;
        std::map<uid_t, std::size_t> per_uid_;
        FairScheduler scheduler_;     // of the event loop, by uid
        std::uint64_t activity_ = 0;  // a clock of requests: the connection with the least was silent for longest
        std::shared_ptr<ControlServer*> self_ = std::make_shared<ControlServer*>(this);
};

}  // namespace sockbroker
