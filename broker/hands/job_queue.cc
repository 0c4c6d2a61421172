// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/job_queue.h"

#include <algorithm>
#include <cmath>

namespace sockbroker::hands {

namespace {

constexpr double kHalfLifeUsec = 1'000'000;
constexpr std::size_t kManyShares = 256;

double decayed(double used, std::int64_t since_usec) {
        return used * std::exp2(-static_cast<double>(since_usec) / kHalfLifeUsec);
}

}  // namespace

void JobQueue::push(const std::string& who, Waiting job) {
        shares_[who].jobs.push_back(job);
        size_++;
}

void JobQueue::remove(std::uint64_t job) {
        for (auto& [who, share] : shares_) {
                size_ -= std::erase_if(share.jobs, [&](const Waiting& one) { return one.job == job; });
        }
}

std::optional<JobQueue::Next> JobQueue::pop(std::size_t hands, std::size_t slow_busy, std::int64_t now_usec) {
        Share* best = nullptr;
        double least = 0;
        bool best_is_slow = false;
        for (auto& [who, share] : shares_) {
                if (share.jobs.empty()) {
                        continue;
                }
                const bool slow = now_usec < share.slow_until_usec;
                const double used = decayed(share.used_usec, now_usec - share.used_at_usec);
                if ((slow && slow_busy + 1 >= std::max<std::size_t>(hands, 2)) || (best != nullptr && used >= least)) {
                        continue;
                }
                best = &share;
                least = used;
                best_is_slow = slow;
        }
        if (best == nullptr) {
                return std::nullopt;
        }
        const Next next{best->jobs.front().job, best_is_slow};
        best->jobs.pop_front();
        size_--;
        return next;
}

std::optional<std::uint64_t> JobQueue::pop_older(std::int64_t usec) {
        for (auto& [who, share] : shares_) {
                if (!share.jobs.empty() && share.jobs.front().since_usec < usec) {
                        const auto job = share.jobs.front().job;
                        share.jobs.pop_front();
                        size_--;
                        return job;
                }
        }
        return std::nullopt;
}

void JobQueue::used(const std::string& who, std::int64_t usec, std::int64_t now_usec) {
        Share& share = shares_[who];
        share.used_usec = decayed(share.used_usec, now_usec - share.used_at_usec) + static_cast<double>(usec);
        share.used_at_usec = now_usec;
        if (usec >= kSlowUsec) {
                share.slow_until_usec = now_usec + kForgetUsec;
        }
        if (shares_.size() > kManyShares) {
                forget_some(now_usec);
        }
}

bool JobQueue::is_slow(const std::string& who, std::int64_t now_usec) const {
        const auto found = shares_.find(who);
        return found != shares_.end() && now_usec < found->second.slow_until_usec;
}

// Those of long ago; and where that is not enough, all that do not wait: what they have had is forgiven.
void JobQueue::forget_some(std::int64_t now_usec) {
        std::erase_if(shares_, [&](const auto& entry) {
                return entry.second.jobs.empty() && now_usec - entry.second.used_at_usec > kForgetUsec;
        });
        if (shares_.size() > kManyShares) {
                std::erase_if(shares_, [&](const auto& entry) {
                        return entry.second.jobs.empty() && now_usec >= entry.second.slow_until_usec;
                });
        }
}

}  // namespace sockbroker::hands
