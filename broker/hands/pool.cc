// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/pool.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

namespace sockbroker::hands {

Pool::Who::Who(const Charge& charge) : text_(charge.unit) {
        if (charge.unit.empty()) {
                const auto end = fmt::format_to_n(room_.data(), room_.size(), "uid {}", charge.uid).out;
                text_ = {room_.data(), static_cast<std::size_t>(end - room_.data())};
        }
}

void Pool::push(std::unique_ptr<Job>& job) {
        const auto number = job->order.job;
        const auto since = job->since_usec;
        const auto at = waiting_.try_emplace(number).first;
        try {
                queue_.push(Who(job->charge), {number, since});
        } catch (...) {
                waiting_.erase(at);
                throw;
        }
        at->second = std::move(job);
        dispatch(since);
}

void Pool::dispatch(std::int64_t now_usec) {
        for (const auto& hand : hands_) {
                if (queue_.empty()) {
                        return;
                }
                if (!hand->idle()) {
                        continue;
                }
                const auto next = queue_.next(hands_.size(), now_usec);
                if (!next) {
                        return;
                }
                const auto job = waiting_.find(*next);
                // What the door brings in may keep that hand before it has read its order: then nobody knew whether the
                // message is consumed, and the queue of all would stand still.
                const Order& order = job->second->order;
                if (hand->for_the_door && order.kind == OrderKind::kTake && order.source == Source::kNotify) {
                        continue;
                }
                if (hand->begin(job->second, now_usec) != 0) {
                        return;  // it is about to be heard that it died, or there is no memory: the timer tries again
                }
                waiting_.erase(job);
                queue_.start();
        }
}

void Pool::end(const Charge& charge, std::int64_t usec, std::int64_t now_usec) {
        queue_.end(Who(charge), usec, now_usec);
}

void Pool::cancel(std::uint64_t connection) {
        for (auto at = waiting_.begin(); connection != 0 && at != waiting_.end();) {
                if (at->second->connection_id == connection) {
                        queue_.remove(at->first);
                        at = waiting_.erase(at);
                } else {
                        ++at;
                }
        }
}

bool Pool::disown(std::uint64_t connection) {
        for (const auto& hand : hands_) {
                if (hand->job() != nullptr && connection != 0 && hand->job()->connection_id == connection) {
                        hand->job()->connection_id = 0;
                        return true;
                }
        }
        return false;
}

std::unique_ptr<Job> Pool::pop_older(std::int64_t usec) {
        // What is given is to be closed, and there is nobody else to do it.
        const auto old = queue_.pop_older(usec, [&](std::uint64_t job) { return waiting_.at(job)->given.empty(); });
        return old ? std::move(waiting_.extract(*old).mapped()) : nullptr;
}

std::unique_ptr<Job> Pool::pop_if(const std::function<bool(const Job&)>& fits) {
        const auto found = queue_.pop_older(std::numeric_limits<std::int64_t>::max(),
                                            [&](std::uint64_t job) { return fits(*waiting_.at(job)); });
        return found ? std::move(waiting_.extract(*found).mapped()) : nullptr;
}

bool Pool::is_at_work() const {
        return std::ranges::any_of(hands_, [](const auto& hand) { return !hand->for_the_door && hand->job(); });
}

// One hand of disposal serves the core alone: what the door brings in is mostly what nobody has looked at.
void Pool::fill() noexcept {
        while (hands_.size() < size_) {
                const bool for_the_door = role_ == Role::kDisposal && std::ranges::any_of(hands_, [](const auto& one) {
                                                  return !one->for_the_door;
                                          });
                auto hand = roster_.fork(role_, for_the_door);
                if (!hand) {
                        return;
                }
                hands_.push_back(std::move(hand));
        }
}

bool Pool::forked(std::uint32_t child, pid_t pid, std::int64_t now_usec) {
        const auto found = std::ranges::find(hands_, child, [](const auto& hand) { return hand->child(); });
        if (found == hands_.end()) {
                return false;
        }
        (*found)->forked(pid);
        dispatch(now_usec);
        return true;
}

std::unique_ptr<Hand> Pool::remove(std::uint32_t child) {
        const auto found = std::ranges::find(hands_, child, [](const auto& hand) { return hand->child(); });
        if (found == hands_.end()) {
                return nullptr;
        }
        auto hand = std::move(*found);
        hands_.erase(found);
        return hand;
}

void Pool::add_working(std::vector<Hand*>& all) const {
        for (const auto& hand : hands_) {
                if (hand->job() != nullptr || hand->batch() != nullptr) {
                        all.push_back(hand.get());
                }
        }
}

}  // namespace sockbroker::hands
