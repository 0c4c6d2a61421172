// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is behind Crew: hears what hands, zygote and door say, gives out what waits, and looks at the clock. What ends
// something needs no memory, so that nothing waits for ever where there is none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "broker/hands/all_hands.h"
#include "broker/hands/crew.h"
#include "broker/hands/doors.h"
#include "broker/hands/hand.h"
#include "broker/hands/orphans.h"
#include "broker/hands/roster.h"
#include "broker/hands/slow_senders.h"

namespace sockbroker::hands {

class Crew::State {
public:
        State(sd_event* event, Zygote& zygote, const Options& options, Hooks hooks);

        Result<void> start();
        Roster& roster() { return roster_; }
        Holders& holders() { return hands_.holders; }

        // False, and where it throws: the job is the caller's still. Only for what is barred nobody can be had.
        bool push(std::unique_ptr<Job>& job);
        void close(std::uint64_t id, OwnedFd connection, Charge charge) noexcept;
        void release(const std::string& holder, std::uint64_t cookie, std::string name) noexcept;

private:
        void give(std::unique_ptr<Job>& job);  // to whom it is for

        // --- what hands say

        bool answered(Hand& hand, ParsedAnswer& answer);
        void begin_batch(Hand& hand, Charge whose, std::int64_t now);
        bool end_batch(Hand& hand, std::int64_t now);
        bool taken(Hand& hand, const ParsedAnswer& answer);
        void finish(Hand& hand, ParsedAnswer& answer, std::int64_t now);
        void finish_quarantined(Hand& hand, const ParsedAnswer& answer);

        // --- processes that come and go

        void forked(std::uint32_t child, pid_t pid);
        void exited(std::uint32_t child);
        // It died, or nobody would want its answers.
        void lost(std::uint32_t child);
        void give_up(std::unique_ptr<Hand> hand, Outcome why) noexcept;
        void forgive();
        void turn_away_barred(Pool& pool) noexcept;
        // What keeps the queue of `notify` waiting, though its sender has no claim to a hand.
        void put_aside_slow() noexcept;
        [[nodiscard]] bool put_aside(std::unique_ptr<Job>& job) noexcept;  // false: it cannot be
        [[nodiscard]] bool goes_aside(const Job& job, std::int64_t now) const;
        void connected(Connection one);
        void close_orphans() noexcept;

        // --- time

        void wake(bool at_once = false);
        void tick();

        sd_event* event_;
        Zygote& zygote_;
        const Options options_;
        Hooks hooks_;
        Roster roster_;
        std::uint32_t last_job_ = 0;
        AllHands hands_;
        Doors doors_;
        Orphans orphans_;
        SlowSenders slow_;
        OwnedSource timer_;
        bool ticking_ = false;
};

}  // namespace sockbroker::hands
