// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the messages of those go who get no hand, and what they leave in the core's last copy of a connection: a
// process for each reason, which takes all of it and closes nothing. So it waits for nobody, and the queue of `notify`
// goes on for all others. What it has is closed by its end: when the reason is gone, or when it is full. That may take
// as long as the senders like, so only so many are ending at once, and they count for nobody who asks for a hand: then
// what is full stays so, and others take what is for it. What nobody was free for is put aside here too: its sender is
// the reason. Who has more than his share here (shares.h) is not heard on `notify` until it is closed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "broker/hands/hand.h"
#include "broker/hands/roster.h"
#include "broker/hands/shares.h"

namespace sockbroker::hands {

class Quarantine {
public:
        static constexpr std::size_t kMaxReasons = 16;  // beyond, they share the one for no reason of its own
        // What was put aside of who is not barred is closed so long after the last of it came.
        static constexpr std::int64_t kAsideUsec = 2'000'000;
        static constexpr std::size_t kMaxEnding = 16;

        Quarantine(Roster& roster, const Crew::Hooks& hooks);

        // False, and where it throws: the job is the caller's still. There is no process with room for it, and none can
        // be made now.
        [[nodiscard]] bool push(std::unique_ptr<Job>& job);
        void dispatch(std::int64_t now_usec) noexcept;
        // It has taken so many descriptors of this user.
        void took(std::uint32_t child, uid_t uid, std::size_t count) noexcept;
        // It has refused what it was to take.
        void refused(std::uint32_t child) noexcept;
        void exited(std::uint32_t child) noexcept;
        // Those whose reason is gone.
        void release() noexcept;

        [[nodiscard]] std::unique_ptr<Job> pop_older(std::int64_t usec);
        void fill() noexcept;  // where something waits
        [[nodiscard]] bool forked(std::uint32_t child, pid_t pid, std::int64_t now_usec);
        [[nodiscard]] std::unique_ptr<Hand> remove(std::uint32_t child);
        void add_working(std::vector<Hand*>& all) const;
        [[nodiscard]] bool settled() const;

private:
        struct Room {
                std::string reason;  // as of the ledger
                Charge charge;       // who is barred for it
                std::unique_ptr<Hand> hand;
                std::deque<std::unique_ptr<Job>> queue;
                std::int64_t until_usec =
                        0;  // until then it stays, for who is not barred; 0: there is nobody like that
                bool full = false;
        };
        [[nodiscard]] Room& of(const Charge& charge, std::int64_t now_usec);
        [[nodiscard]] std::vector<Room>::iterator find(std::uint32_t child);
        [[nodiscard]] bool is_over(const Room& room) const;
        [[nodiscard]] bool may_retire() const { return roster_.leaving(Role::kQuarantine) < kMaxEnding; }
        void retire(Room& room) noexcept;
        [[nodiscard]] bool can_take(Room& room);
        [[nodiscard]] Room* another(std::int64_t now_usec);
        void count(std::uint32_t child, const Party& party, std::size_t count);
        void tell(const Party& party, bool heard) const;

        Roster& roster_;
        const Crew::Hooks& hooks_;
        std::vector<Room> rooms_;
        Shares shares_;
};

}  // namespace sockbroker::hands
