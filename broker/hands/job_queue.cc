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

// Who has had nothing for a while starts where the others are: what those have had before is no reason to let them
// wait.
void JobQueue::push(const std::string& who, Waiting job) {
        Share& share = shares_[who];
        if (share.is_idle()) {
                double least = std::numeric_limits<double>::infinity();
                for (const auto& [other, active] : shares_) {
                        if (!active.is_idle()) {
                                least = std::min(least, active.used_by(job.since_usec));
                        }
                }
                if (least != std::numeric_limits<double>::infinity()) {
                        share.used_usec = std::clamp(share.used_by(job.since_usec), least, least + kMostBehindUsec);
                        share.used_at_usec = job.since_usec;
                }
        }
        share.jobs.push_back(job);
        size_++;
}

void JobQueue::remove(std::uint64_t job) {
        for (auto& [who, share] : shares_) {
                size_ -= std::erase_if(share.jobs, [&](const Waiting& one) { return one.job == job; });
        }
}

std::optional<std::uint64_t> JobQueue::pop(std::size_t hands, std::int64_t now_usec) {
        const auto is_slow = [&](const Share& share) { return now_usec < share.slow_until_usec; };
        std::size_t slow_running = 0;
        for (const auto& [who, share] : shares_) {
                slow_running += is_slow(share) ? share.running : 0;
        }
        const std::size_t most = std::max<std::size_t>(hands, 2) - 1;
        Share* best = nullptr;
        double least = 0;
        for (auto& [who, share] : shares_) {
                if (share.jobs.empty() || share.running >= most || (is_slow(share) && slow_running >= most)) {
                        continue;
                }
                const double used = share.used_by(now_usec);
                if (best == nullptr || used < least ||
                    (used == least && share.jobs.front().since_usec < best->jobs.front().since_usec)) {
                        best = &share;
                        least = used;
                }
        }
        if (best == nullptr) {
                return std::nullopt;
        }
        const auto job = best->jobs.front().job;
        best->jobs.pop_front();
        best->running++;
        size_--;
        return job;
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

void JobQueue::begin(const std::string& who) {
        shares_[who].running++;
}

void JobQueue::end(const std::string& who, std::int64_t usec, std::int64_t now_usec) {
        Share& share = shares_[who];
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
