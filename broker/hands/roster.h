// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The processes of the crew: who is there, who was left behind and for whose sake, and which slots of the staging map
// are whose. Slots of a hand that was left behind are nobody else's until it is reaped: it may still write there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/event.h"
#include "broker/hands/crew.h"
#include "broker/hands/hand.h"
#include "broker/hands/ledger.h"
#include "broker/hands/zygote.h"

namespace sockbroker::hands {

class Roster {
public:
        Roster(sd_event* event, const Zygote& zygote, const Crew::Options& options, Hand::Hooks hooks);

        // nullptr: none can be had now, for want of descriptors, of slots or of memory. What becomes of it later needs
        // none.
        [[nodiscard]] std::unique_ptr<Hand> fork(Role role, bool for_the_door) noexcept;
        [[nodiscard]] std::uint32_t next_child() { return ++last_child_; }

        // It is killed, and counted as the charge's until it is reaped. `job`: what it was at.
        // `ends`: now; otherwise end_left_behind() kills it.
        void leave_behind(std::unique_ptr<Hand> hand, std::optional<Charge> charge, std::unique_ptr<Job> job,
                          bool ends) noexcept;
        void end_left_behind() noexcept;
        [[nodiscard]] bool has_unended() const;
        // How many of a role are ending, whoever they are charged to.
        [[nodiscard]] std::size_t leaving(Role role) const;
        // It has nothing to do any more and ends by itself.
        void dismiss(std::unique_ptr<Hand> hand) noexcept;
        // The job of one that was left behind, if somebody still waits for a word of it: once it is known whether its
        // message was consumed.
        [[nodiscard]] std::unique_ptr<Job> unfinished(std::uint32_t child);
        // Whether one that was left behind may still be receiving from this connection.
        [[nodiscard]] bool is_at(std::uint64_t connection) const;

        [[nodiscard]] bool is_leaving(std::uint32_t child) const;

        // Reaped. True: it was one of those above.
        bool exited(std::uint32_t child);
        // It never was.
        void forget(const Hand& hand);

        // --- whom to keep from hands

        [[nodiscard]] bool bars(const Charge& charge) const { return ledger_.bars(charge); }
        [[nodiscard]] const Ledger& ledger() const { return ledger_; }
        void note_served(uid_t uid) { ledger_.note_served(uid); }
        // A number for the door to remember it by. Where there are too many: that of nobody in particular.
        [[nodiscard]] std::uint32_t offender(const Charge& charge) noexcept;
        [[nodiscard]] Charge charge_of(std::uint32_t offender, uid_t uid) const;

private:
        struct Leaving {
                std::unique_ptr<Hand> hand;
                std::unique_ptr<Job> job;
                bool ends = true;
        };
        [[nodiscard]] std::vector<Leaving>::iterator find(std::uint32_t child);
        void free_slots(const Hand& hand);
        [[nodiscard]] std::uint32_t number(const Charge& charge);

        sd_event* event_;
        const Zygote& zygote_;
        const Crew::Options options_;
        Hand::Hooks hooks_;
        std::uint32_t last_child_ = 0;
        std::vector<bool> slots_;    // ranges in use
        std::size_t processes_ = 0;  // that are to be reaped sooner or later: for all there is room in what follows
        std::vector<Leaving> leaving_;
        Ledger ledger_;
        std::map<Charge, std::uint32_t> offenders_;
        std::map<std::uint32_t, Charge> charges_;
        static constexpr std::uint32_t kAnyOffender = 1;
        std::uint32_t last_offender_ = kAnyOffender;
};

}  // namespace sockbroker::hands
