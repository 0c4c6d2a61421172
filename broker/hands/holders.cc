// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/holders.h"

#include <algorithm>
#include <utility>

namespace sockbroker::hands {

Holders::Holder& Holders::of(const std::string& key) {
        if (const auto found = by_key_.find(key); found != by_key_.end()) {
                return *found->second;
        }
        const auto at = by_key_.try_emplace(key).first;
        try {
                if (holders_.size() < Crew::kMaxHolders) {
                        lost_kept_.reserve(Crew::kMaxHolders + 1);
                        holders_.reserve(Crew::kMaxHolders);
                        at->second = holders_.emplace_back(std::make_unique<Holder>()).get();
                } else {
                        at->second = holders_[std::hash<std::string>{}(key) % holders_.size()].get();
                }
        } catch (...) {
                by_key_.erase(at);
                throw;
        }
        return *at->second;
}

void Holders::push(std::unique_ptr<Job>& job) {
        const auto now = job->since_usec;
        auto& queue = of(job->holder).queue;
        queue.emplace_back();
        queue.back() = std::move(job);
        replace();
        dispatch(now);
}

// So that note() needs none.
bool Holders::make_room(Holder& holder, const Job& job) {
        return !job.order.keep || succeeds([&] {
                auto& cookies = holder.kept[job.holder];
                cookies.reserve(cookies.size() + kMaxMessageFds);
        });
}

void Holders::dispatch(std::int64_t now_usec) {
        for (const auto& holder : holders_) {
                if (holder->queue.empty() || !holder->hand || !holder->hand->idle()) {
                        continue;
                }
                // Otherwise it is about to be heard that it died, or there is no memory: the timer tries again.
                if (make_room(*holder, *holder->queue.front()) &&
                    holder->hand->begin(holder->queue.front(), now_usec) == 0) {
                        holder->queue.pop_front();
                }
        }
}

void Holders::note(const Hand& hand, const Job& job, const ParsedAnswer& answer) noexcept {
        const auto holder = std::ranges::find_if(holders_, [&](const auto& one) { return one->hand.get() == &hand; });
        if (holder == holders_.end() || !job.order.keep) {
                return;
        }
        const auto kept = (*holder)->kept.find(job.holder);
        if (kept == (*holder)->kept.end()) {
                return;
        }
        auto& cookies = kept->second;
        for (const Found& one : answer.found) {
                if ((one.staging == Staging::kOffered || one.staging == Staging::kKept) &&
                    std::ranges::find(cookies, one.facts.cookie) == cookies.end()) {
                        cookies.push_back(one.facts.cookie);
                }
        }
        if (cookies.empty()) {
                (*holder)->kept.erase(kept);
        }
}

std::vector<std::uint64_t> Holders::release(const std::string& key, const std::vector<std::uint64_t>& cookies) {
        Holder& holder = of(key);
        std::vector<std::uint64_t> free;
        free.reserve(cookies.size());
        if (const auto mine = holder.kept.find(key); mine != holder.kept.end()) {
                std::erase_if(mine->second,
                              [&](std::uint64_t one) { return std::ranges::find(cookies, one) != cookies.end(); });
                if (mine->second.empty()) {
                        holder.kept.erase(mine);
                }
        }
        std::ranges::copy_if(cookies, std::back_inserter(free), [&](std::uint64_t cookie) {
                return std::ranges::none_of(holder.kept, [&](const auto& entry) {
                        return std::ranges::find(entry.second, cookie) != entry.second.end();
                });
        });
        return free;
}

std::vector<std::uint64_t> Holders::kept(const std::string& key) const {
        const auto holder = by_key_.find(key);
        if (holder == by_key_.end()) {
                return {};
        }
        const auto found = holder->second->kept.find(key);
        return found == holder->second->kept.end() ? std::vector<std::uint64_t>{} : found->second;
}

void Holders::cancel(std::uint64_t connection) {
        for (const auto& holder : holders_) {
                std::erase_if(holder->queue,
                              [&](const auto& job) { return connection != 0 && job->connection_id == connection; });
        }
}

bool Holders::disown(std::uint64_t connection) {
        for (const auto& holder : holders_) {
                Job* const job = holder->hand ? holder->hand->job() : nullptr;
                if (job != nullptr && connection != 0 && job->connection_id == connection) {
                        job->connection_id = 0;
                        return true;
                }
        }
        return false;
}

// Releases and what PID 1 is to hear are for its own good, and wait for as long as it takes.
std::unique_ptr<Job> Holders::pop_older(std::int64_t usec) {
        for (const auto& holder : holders_) {
                for (auto at = holder->queue.begin(); at != holder->queue.end(); ++at) {
                        if ((*at)->since_usec < usec && (*at)->done && (*at)->given.empty()) {
                                auto old = std::move(*at);
                                holder->queue.erase(at);
                                return old;
                        }
                }
        }
        return nullptr;
}

bool Holders::forked(std::uint32_t child, pid_t pid, std::int64_t now_usec) {
        for (const auto& holder : holders_) {
                if (holder->hand && holder->hand->child() == child) {
                        holder->hand->forked(pid);
                        dispatch(now_usec);
                        return true;
                }
        }
        return false;
}

std::unique_ptr<Hand> Holders::remove(std::uint32_t child) {
        for (const auto& holder : holders_) {
                if (holder->hand && holder->hand->child() == child) {
                        if (!holder->kept.empty() && lost_kept_.size() < lost_kept_.capacity()) {
                                lost_kept_.push_back(std::exchange(holder->kept, {}));
                        }
                        holder->kept.clear();
                        return std::move(holder->hand);
                }
        }
        return nullptr;
}

void Holders::tell_lost() noexcept {
        while (!lost_kept_.empty()) {
                Kept& kept = lost_kept_.back();
                while (!kept.empty()) {
                        const auto one = kept.extract(kept.begin());
                        if (lost_ && !one.mapped().empty()) {
                                (void)guarded([&] { lost_(one.key(), one.mapped()); });
                        }
                }
                lost_kept_.pop_back();
        }
}

void Holders::replace() noexcept {
        for (const auto& holder : holders_) {
                if (!holder->hand && !holder->queue.empty()) {
                        holder->hand = roster_.fork(Role::kHolder, false);
                }
        }
}

void Holders::retire() {
        std::erase_if(holders_, [&](const auto& holder) {
                if (!holder->hand || holder->hand->idle()) {
                        std::erase_if(holder->kept, [](const auto& entry) { return entry.second.empty(); });
                }
                if (!holder->queue.empty() || !holder->kept.empty() || (holder->hand && !holder->hand->idle())) {
                        return false;
                }
                if (holder->hand) {
                        roster_.dismiss(std::move(holder->hand));
                }
                std::erase_if(by_key_, [&](const auto& entry) { return entry.second == holder.get(); });
                return true;
        });
}

void Holders::add_working(std::vector<Hand*>& all) const {
        for (const auto& holder : holders_) {
                if (holder->hand && holder->hand->job() != nullptr) {
                        all.push_back(holder->hand.get());
                }
        }
}

bool Holders::settled() const {
        return std::ranges::all_of(holders_, [](const auto& holder) {
                return holder->queue.empty() && holder->hand && !holder->kept.empty();
        });
}

}  // namespace sockbroker::hands
