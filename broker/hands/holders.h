// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One process for each service with sockets on hold, for as long as it has some: what hangs there costs its own service
// only. None is shared, and there are kMaxHolders of them: who finds none is not held. What ends a hold needs no
// memory: it is noted, and ordered when there is some.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/hands/crew.h"
#include "broker/hands/hand.h"
#include "broker/hands/roster.h"

namespace sockbroker::hands {

class Holders {
public:
        // `last_job`: of all jobs, which this counts on.
        Holders(Roster& roster, const Crew::Hooks& hooks, std::uint32_t& last_job)
                : roster_(roster), hooks_(hooks), last_job_(last_job) {}

        // This service has one, or may have one.
        [[nodiscard]] bool may_hold(const std::string& key) const;
        void push(std::unique_ptr<Job>& job);
        void dispatch(std::int64_t now_usec) noexcept;
        void note(const Hand& hand, const Job& job, const ParsedAnswer& answer) noexcept;  // what is kept from now on
        // Not this key's any more. `name`: what PID 1 is to forget before it is closed; empty: nothing.
        void release(const std::string& key, std::uint64_t cookie, std::string name) noexcept;
        [[nodiscard]] bool owes_a_word() const;  // whether PID 1 has not forgotten yet what it is to forget
        // PID 1 has. False: nobody had asked for it.
        [[nodiscard]] bool forgotten(const Hand& hand, std::uint32_t job) noexcept;
        [[nodiscard]] std::vector<std::uint64_t> kept(const std::string& key) const;
        [[nodiscard]] bool keeps(const std::string& key, std::uint64_t cookie) const;

        void cancel(std::uint64_t connection);
        [[nodiscard]] bool disown(std::uint64_t connection);
        [[nodiscard]] std::unique_ptr<Job> pop_older(std::int64_t usec);
        // One that waits, of which this is so.
        [[nodiscard]] std::unique_ptr<Job> pop_if(const std::function<bool(const Job&)>& fits);

        [[nodiscard]] bool forked(std::uint32_t child, pid_t pid, std::int64_t now_usec);
        // What it kept is lost, which is said by tell_lost(), later.
        [[nodiscard]] std::unique_ptr<Hand> remove(std::uint32_t child);
        void tell_lost() noexcept;
        void replace() noexcept;  // where something waits
        void retire();            // those with nothing to keep and nothing to do
        void add_working(std::vector<Hand*>& all) const;
        [[nodiscard]] bool settled() const;
        [[nodiscard]] bool idle() const;  // nothing waits to be ordered, and nothing is being done

private:
        using Kept = std::map<std::string, std::vector<std::uint64_t>>;
        struct Unwanted {
                std::uint64_t cookie = 0;  // 0: PID 1 only is to forget it
                std::string name;          // in PID 1's store; empty: none
                std::uint32_t job = 0;     // it was ordered, and PID 1 owes a word; 0: it was not
        };
        struct Holder {
                std::unique_ptr<Hand> hand;  // none: to be forked
                std::deque<std::unique_ptr<Job>> queue;
                Kept kept;                       // with room for what the next job brings
                std::vector<Unwanted> unwanted;  // with room for all that is kept
                Charge charge;                   // of what was kept last: for whatever is done with it

                [[nodiscard]] bool has_to_release() const;
                void make_room(std::size_t more);
        };
        void forget(std::string name);
        [[nodiscard]] Holder& of(const std::string& key);
        [[nodiscard]] Holder* holder_of(const Hand& hand) const;
        [[nodiscard]] bool prepare(Holder& holder, Job& job) const;
        [[nodiscard]] std::size_t adopting() const;
        bool order_release(Holder& holder, std::int64_t now_usec);

        Roster& roster_;
        const Crew::Hooks& hooks_;
        std::uint32_t& last_job_;
        std::vector<std::unique_ptr<Holder>> holders_;
        std::map<std::string, Holder*> by_key_;
        std::vector<Kept> lost_kept_;  // with room for one of each
};

}  // namespace sockbroker::hands
