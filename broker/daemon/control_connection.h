// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One connection of the control socket: reads a request, then writes its answer to the end before it reads the next, so
// that what a peer can make the broker keep is one record.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/daemon/answer_records.h"
#include "broker/daemon/control_server.h"
#include "broker/daemon/incoming.h"
#include "broker/hands/crew.h"

namespace sockbroker {

class ControlServer::Connection {
public:
        Connection(ControlServer& server, const hands::Connection& accepted);
        ~Connection();
        Connection(const Connection&) = delete;
        Connection& operator=(const Connection&) = delete;

        [[nodiscard]] uid_t uid() const { return uid_; }
        [[nodiscard]] std::uint64_t last_active() const { return last_active_; }

        [[nodiscard]] bool watch(int fd);
        // From now on it is closed as what comes from strangers is.
        void own(OwnedFd fd) { fd_ = std::move(fd); }
        // Before the broker ends: what its peer, who monitors, has not read yet, as far as there is room for it.
        void end_feed();

private:
        // Deletes this connection where it ends: nothing may be touched afterwards.
        void ready(std::uint32_t events);
        template <class Act>
        void or_end(const Act& act);

        [[nodiscard]] bool read_request();
        void take(const IncomingPtr& message, const Intake& intake);
        void handle_taken(const IncomingPtr& message);
        void handle(const IncomingPtr& message);

        void arrived(Answer answer);
        [[nodiscard]] bool write_answer();
        [[nodiscard]] bool send_held();
        void held_sent(int errnum);
        [[nodiscard]] bool finish_answer();
        [[nodiscard]] bool wait_for_feed();
        [[nodiscard]] bool wait_for_reader();

        ControlServer& server_;
        int level_ = 0;  // of its user among all, when it was last looked at
        const std::uint64_t id_;
        const uid_t uid_;
        const bool labels_;  // its peer speaks as label.h says
        std::uint64_t last_active_;
        OwnedFd fd_;
        hands::Charge charge_;
        bool ends_ = false;     // nothing is read from it any more, it only waits for its peer to leave
        bool waiting_ = false;  // for an answer that comes later
        bool reading_ = false;  // the request is in hand
        bool answering_ = false;
        AnswerRecords records_;
        std::shared_ptr<Connection*> self_ = std::make_shared<Connection*>(this);
        OwnedSource deadline_;
        OwnedSource io_;
};

}  // namespace sockbroker
