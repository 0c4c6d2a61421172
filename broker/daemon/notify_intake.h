// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The datagram socket: one queue for all senders, drained at once. Nobody is answered here; the journal is. Descriptors
// are taken off the queue by hands, and while one does so the queue is left alone. Messages of one user are handled in
// the order in which they came, however long a hand, or the host with a name, takes; all others go on.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/broker.h"
#include "broker/hands/crew.h"

namespace sockbroker {

class NotifyIntake {
public:
        [[nodiscard]] static Result<std::unique_ptr<NotifyIntake>> listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                                          hands::Crew& crew);

        // Before the end: nothing more is taken off the queue, where it waits for the next broker.
        void stop();
        [[nodiscard]] bool is_idle() const { return being_taken_ == nullptr && senders_.empty(); }
        // What was taken and is not decided, which ends with this process: the journal says so.
        void refuse_waiting() noexcept;

private:
        // Messages that wait, and their descriptors: of one user, and in all. Beyond, they are dropped.
        static constexpr std::size_t kMaxWaitingOfUser = 1024;
        static constexpr std::size_t kMaxWaiting = 8192;

        // A barrier keeps the queue of all waiting for no longer than that.
        static constexpr std::int64_t kMaxAtBarrierUsec = 50'000;

        NotifyIntake(OwnedFd fd, Broker& broker, hands::Crew& crew)
                : broker_(broker), crew_(crew), fd_(std::move(fd)) {}

        struct Waiting {
                IncomingPtr message;
                std::size_t cost = 1;
                bool taken = false;  // no hand has it
        };
        struct Sender {
                std::deque<Waiting> queue;
                IncomingPtr handling;  // one of them, which waits for a name
                bool later = false;    // it has a turn
                std::size_t cost = 0;

                // A hand has what is first, or its turn comes.
                [[nodiscard]] bool goes_on_soon() const { return handling == nullptr && !queue.empty(); }
        };

        void drain();
        [[nodiscard]] bool drain_some();  // false: there may be more
        // False: the queue must be left alone until go_on_reading().
        [[nodiscard]] bool take_descriptors(const IncomingPtr& message);
        [[nodiscard]] bool stays_at_barrier(const Incoming& message);
        void taken(const IncomingPtr& message, const hands::Taken& taken) noexcept;
        void stop_reading();
        void go_on_reading();
        void go_on_reading_in(std::int64_t usec);

        void push(const IncomingPtr& message, bool taken);
        void forget_last(const Incoming& message);
        void count_taken(const IncomingPtr& message) noexcept;
        [[nodiscard]] bool has_room(const Incoming& message) const;
        void queue(const IncomingPtr& message);
        void refuse(const IncomingPtr& message) noexcept;
        // Handles what has waited for its turn, for so long at most, and the rest in another turn of the loop.
        void go_on(uid_t uid) noexcept;
        void go_on_until(uid_t uid, std::chrono::steady_clock::time_point end) noexcept;
        [[nodiscard]] bool go_on_later(uid_t uid) noexcept;
        void go_on_some() noexcept;
        void handle(uid_t uid, const IncomingPtr& message) noexcept;
        void handled(uid_t uid, Incoming& message) noexcept;

        Broker& broker_;
        hands::Crew& crew_;
        OwnedFd fd_;
        OwnedSource source_;
        OwnedSource again_;
        bool ends_ = false;
        bool behind_ = false;  // more waits than one turn can do: then all others come first
        const Incoming* being_taken_ =
                nullptr;                       // by a hand, which has not said that it has it: the queue is left alone
        const Incoming* in_hand_ = nullptr;    // of the broker
        IncomingPtr seen_;                     // first in the queue still, though it was looked at: it counts once
        std::optional<uid_t> at_barrier_of_;   // the queue is left alone until this one's messages are handled
        std::int64_t barrier_since_usec_ = 0;  // 0: no barrier is first in the queue
        std::map<uid_t, Sender> senders_;      // who has a message that waits
        std::size_t cost_ = 0;                 // of all that wait
        std::deque<uid_t> later_;              // who has a turn
        OwnedSource turn_;
        std::shared_ptr<NotifyIntake*> self_ = std::make_shared<NotifyIntake*>(this);
};

}  // namespace sockbroker
