// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What waits for a hand, in turns: next is whoever has had least of the hands' time lately. Nobody gets all of them at
// once, nor do all together who have lately kept one for long: so an honest peer waits for no series of slow ones.
// Pure. Only push() and begin() need memory, and change nothing where there is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker::hands {

class JobQueue {
public:
        static constexpr std::int64_t kSlowUsec = 20'000;
        static constexpr std::int64_t kForgetUsec = 10'000'000;

        struct Waiting {
                std::uint64_t job = 0;
                std::int64_t since_usec = 0;
        };

        void push(std::string_view who, Waiting job);
        void remove(std::uint64_t job);
        // The next that may have one of so many hands now, and goes on waiting until start() says that it has.
        [[nodiscard]] std::optional<std::uint64_t> next(std::size_t hands, std::int64_t now_usec);
        void start();
        // One that came before this time, of those that may go.
        template <class MayGo>
        [[nodiscard]] std::optional<std::uint64_t> pop_older(std::int64_t usec, const MayGo& may_go) {
                for (auto& [who, share] : shares_) {
                        for (auto at = share.jobs.begin(); at != share.jobs.end() && at->since_usec < usec; ++at) {
                                if (const auto job = at->job; may_go(job)) {
                                        share.jobs.erase(at);
                                        size_--;
                                        return job;
                                }
                        }
                }
                return std::nullopt;
        }

        void begin(std::string_view who);  // of what did not wait here
        void end(std::string_view who, std::int64_t usec, std::int64_t now_usec);

        [[nodiscard]] bool empty() const { return size_ == 0; }

private:
        struct Share {
                std::deque<Waiting> jobs;
                std::size_t running = 0;
                double used_usec = 0;  // halved every second
                std::int64_t used_at_usec = 0;
                std::int64_t slow_until_usec = 0;

                [[nodiscard]] bool is_idle() const { return jobs.empty() && running == 0; }
                [[nodiscard]] double used_by(std::int64_t now_usec) const;
        };
        void forget_some(std::int64_t now_usec);

        [[nodiscard]] Share& share_of(std::string_view who);

        std::map<std::string, Share, std::less<>> shares_;
        Share* next_ = nullptr;
        std::size_t size_ = 0;
};

}  // namespace sockbroker::hands
