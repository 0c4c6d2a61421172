// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/job_queue.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sockbroker::hands {

namespace {

constexpr double kHalfLifeUsec = 1'000'000;
constexpr double kMostBehindUsec = 20'000;
constexpr std::size_t kManyShares = 256;

}  // namespace

double JobQueue::Share::used_by(std::int64_t now_usec) const {
        return used_usec * std::exp2(-static_cast<double>(now_usec - used_at_usec) / kHalfLifeUsec);
}

JobQueue::Share& JobQueue::share_of(std::string_view who) {
        const auto found = shares_.find(who);
        return found != shares_.end() ? found->second : shares_.emplace(who, Share{}).first->second;
}

// Who has had nothing for a while starts where the others are: what those have had before is no reason to let them
// wait.
void JobQueue::push(std::string_view who, Waiting job) {
        Share& share = share_of(who);
        const bool was_idle = share.is_idle();
        share.jobs.push_back(job);
        size_++;
        if (!was_idle) {
                return;
        }
        double least = std::numeric_limits<double>::infinity();
        for (const auto& [other, active] : shares_) {
                if (&active != &share && !active.is_idle()) {
                        least = std::min(least, active.used_by(job.since_usec));
                }
        }
        if (least != std::numeric_limits<double>::infinity()) {
                share.used_usec = std::clamp(share.used_by(job.since_usec), least, least + kMostBehindUsec);
                share.used_at_usec = job.since_usec;
        }
}

void JobQueue::remove(std::uint64_t job) {
        for (auto& [who, share] : shares_) {
                size_ -= std::erase_if(share.jobs, [&](const Waiting& one) { return one.job == job; });
        }
}

std::optional<std::uint64_t> JobQueue::next(std::size_t hands, std::int64_t now_usec) {
        const auto is_slow = [&](const Share& share) { return now_usec < share.slow_until_usec; };
        std::size_t slow_running = 0;
        for (const auto& [who, share] : shares_) {
                slow_running += is_slow(share) ? share.running : 0;
        }
        const std::size_t most = std::max<std::size_t>(hands, 2) - 1;
        next_ = nullptr;
        double least = 0;
        for (auto& [who, share] : shares_) {
                if (share.jobs.empty() || share.running >= most || (is_slow(share) && slow_running >= most)) {
                        continue;
                }
                const double used = share.used_by(now_usec);
                if (next_ == nullptr || used < least ||
                    (used == least && share.jobs.front().since_usec < next_->jobs.front().since_usec)) {
                        next_ = &share;
                        least = used;
                }
        }
        return next_ == nullptr ? std::nullopt : std::optional(next_->jobs.front().job);
}

void JobQueue::start() {
        next_->jobs.pop_front();
        next_->running++;
        size_--;
}

void JobQueue::begin(std::string_view who) {
        share_of(who).running++;
}

void JobQueue::end(std::string_view who, std::int64_t usec, std::int64_t now_usec) {
        const auto found = shares_.find(who);
        if (found == shares_.end()) {
                return;
        }
        Share& share = found->second;
        share.running -= share.running > 0 ? 1 : 0;
        share.used_usec = share.used_by(now_usec) + static_cast<double>(usec);
        share.used_at_usec = now_usec;
        if (usec >= kSlowUsec) {
                share.slow_until_usec = now_usec + kForgetUsec;
        }
        if (shares_.size() > kManyShares) {
                forget_some(now_usec);
        }
}

// Those of long ago; and where that is not enough, all that have not been slow: what they have had is forgiven.
void JobQueue::forget_some(std::int64_t now_usec) {
        std::erase_if(shares_, [&](const auto& entry) {
                return entry.second.is_idle() && now_usec - entry.second.used_at_usec > kForgetUsec;
        });
        if (shares_.size() > kManyShares) {
                std::erase_if(shares_, [&](const auto& entry) {
                        return entry.second.is_idle() && now_usec >= entry.second.slow_until_usec;
                });
        }
}

}  // namespace sockbroker::hands
