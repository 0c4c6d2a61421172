// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One process for each service with sockets on hold, for as long as it has some: what hangs there costs its own service
// only. Above a number of them services share.
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
        using Lost = std::function<void(const std::string& key, const std::vector<std::uint64_t>& cookies)>;
        Holders(Roster& roster, const Lost& lost) : roster_(roster), lost_(lost) {}

        void push(std::unique_ptr<Job>& job);
        void dispatch(std::int64_t now_usec);
        void note(const Hand& hand, const Job& job, const ParsedAnswer& answer) noexcept;  // what is kept from now on
        // Not this key's any more; those that are nobody's else.
        [[nodiscard]] std::vector<std::uint64_t> release(const std::string& key,
                                                         const std::vector<std::uint64_t>& cookies);
        [[nodiscard]] std::vector<std::uint64_t> kept(const std::string& key) const;

        void cancel(std::uint64_t connection);
        [[nodiscard]] bool disown(std::uint64_t connection);
        [[nodiscard]] std::unique_ptr<Job> pop_older(std::int64_t usec);

        [[nodiscard]] bool forked(std::uint32_t child, pid_t pid, std::int64_t now_usec);
        // What it kept is lost, which is said by tell_lost(), later.
        [[nodiscard]] std::unique_ptr<Hand> remove(std::uint32_t child);
        void tell_lost() noexcept;
        void replace() noexcept;  // where something waits
        void retire();            // those with nothing to keep and nothing to do
        void add_working(std::vector<Hand*>& all) const;
        [[nodiscard]] bool settled() const;

private:
        using Kept = std::map<std::string, std::vector<std::uint64_t>>;
        struct Holder {
                std::unique_ptr<Hand> hand;  // none: to be forked
                std::deque<std::unique_ptr<Job>> queue;
                Kept kept;  // with room for what the next job brings
        };
        Holder& of(const std::string& key);
        [[nodiscard]] static bool make_room(Holder& holder, const Job& job);

        Roster& roster_;
        const Lost& lost_;
        std::vector<std::unique_ptr<Holder>> holders_;
        std::map<std::string, Holder*> by_key_;
        std::vector<Kept> lost_kept_;  // with room for one of each
};

}  // namespace sockbroker::hands
