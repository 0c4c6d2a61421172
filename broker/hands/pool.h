// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Hands of one kind that are as good as each other, and what waits for them. Only push() and begin() may throw, and
// then nothing has happened.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "broker/hands/hand.h"
#include "broker/hands/job_queue.h"
#include "broker/hands/roster.h"

namespace sockbroker::hands {

class Pool {
public:
        Pool(Role role, std::size_t size, Roster& roster) : role_(role), size_(size), roster_(roster) {
                hands_.reserve(size);
        }

        void push(std::unique_ptr<Job>& job);
        void dispatch(std::int64_t now_usec);
        // What did not wait here, and the end of what did.
        void begin(const Charge& charge) { queue_.begin(Who(charge)); }
        void end(const Charge& charge, std::int64_t usec, std::int64_t now_usec);

        void cancel(std::uint64_t connection);                // a job that waits
        [[nodiscard]] bool disown(std::uint64_t connection);  // whether one is being done
        // One that has waited since before that, and may be given up.
        [[nodiscard]] std::unique_ptr<Job> pop_older(std::int64_t usec);

        // One that waits, of which this is so.
        [[nodiscard]] std::unique_ptr<Job> pop_if(const std::function<bool(const Job&)>& fits);
        // One of the hands that take from the notify socket has something to do.
        [[nodiscard]] bool is_at_work() const;

        void fill() noexcept;  // as many hands as there should be
        [[nodiscard]] bool forked(std::uint32_t child, pid_t pid, std::int64_t now_usec);
        [[nodiscard]] std::unique_ptr<Hand> remove(std::uint32_t child);
        void add_working(std::vector<Hand*>& all) const;
        [[nodiscard]] bool settled() const { return queue_.empty() && hands_.size() == size_; }

private:
        // By whom turns are counted: the unit, else the uid.
        class Who {
        public:
                explicit Who(const Charge& charge);
                operator std::string_view() const { return text_; }  // NOLINT(google-explicit-constructor)

        private:
                std::array<char, 16> room_;
                std::string_view text_;
        };

        Role role_;
        std::size_t size_;
        Roster& roster_;
        std::vector<std::unique_ptr<Hand>> hands_;
        std::unordered_map<std::uint64_t, std::unique_ptr<Job>> waiting_;
        JobQueue queue_;
};

}  // namespace sockbroker::hands
