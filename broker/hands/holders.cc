// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/holders.h"

#include <algorithm>
#include <utility>

namespace sockbroker::hands {

Holders::Holder& Holders::of(const std::string& key) {
        if (const auto found = by_key_.find(key); found != by_key_.end()) {
                return *found->second;
        }
        Holder* holder = nullptr;
        if (holders_.size() < Crew::kMaxHolders) {
                holder = holders_.emplace_back(std::make_unique<Holder>()).get();
        } else {
                holder = holders_[std::hash<std::string>{}(key) % holders_.size()].get();
        }
        by_key_.emplace(key, holder);
        return *holder;
}

void Holders::push(std::unique_ptr<Job> job) {
        const auto now = job->since_usec;
        of(job->holder).queue.push_back(std::move(job));
        replace();
        dispatch(now);
}

void Holders::dispatch(std::int64_t now_usec) {
        for (const auto& holder : holders_) {
                if (holder->queue.empty() || !holder->hand || !holder->hand->idle()) {
                        continue;
                }
                auto job = std::move(holder->queue.front());
                holder->queue.pop_front();
                if (holder->hand->begin(std::move(job), now_usec) != 0) {
                        // It is about to be heard that it died, or there is no memory: the timer tries again.
                        holder->queue.push_front(holder->hand->end_job());
                }
        }
}

void Holders::note(const Hand& hand, const Job& job, const ParsedAnswer& answer) {
        const auto holder = std::ranges::find_if(holders_, [&](const auto& one) { return one->hand.get() == &hand; });
        if (holder == holders_.end() || !job.order.keep) {
                return;
        }
        for (const Found& one : answer.found) {
                if (one.staging == Staging::kOffered || one.staging == Staging::kKept) {
                        (*holder)->kept[job.holder].insert(one.facts.cookie);
                }
        }
}

std::vector<std::uint64_t> Holders::release(const std::string& key, const std::vector<std::uint64_t>& cookies) {
        Holder& holder = of(key);
        auto& mine = holder.kept[key];
        for (const auto cookie : cookies) {
                mine.erase(cookie);
        }
        if (mine.empty()) {
                holder.kept.erase(key);
        }
        std::vector<std::uint64_t> free;
        std::ranges::copy_if(cookies, std::back_inserter(free), [&](std::uint64_t cookie) {
                return std::ranges::none_of(holder.kept,
                                            [&](const auto& entry) { return entry.second.contains(cookie); });
        });
        return free;
}

std::vector<std::uint64_t> Holders::kept(const std::string& key) const {
        const auto holder = by_key_.find(key);
        if (holder == by_key_.end()) {
                return {};
        }
        const auto found = holder->second->kept.find(key);
        return found == holder->second->kept.end()
                       ? std::vector<std::uint64_t>{}
                       : std::vector<std::uint64_t>(found->second.begin(), found->second.end());
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
std::vector<std::unique_ptr<Job>> Holders::pop_older(std::int64_t usec) {
        std::vector<std::unique_ptr<Job>> old;
        for (const auto& holder : holders_) {
                for (auto at = holder->queue.begin(); at != holder->queue.end();) {
                        if ((*at)->since_usec < usec && (*at)->done && (*at)->given.empty()) {
                                old.push_back(std::move(*at));
                                at = holder->queue.erase(at);
                        } else {
                                ++at;
                        }
                }
        }
        return old;
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
                        for (auto& [key, cookies] : std::exchange(holder->kept, {})) {
                                lost_kept_[key].merge(cookies);
                        }
                        return std::move(holder->hand);
                }
        }
        return nullptr;
}

void Holders::tell_lost() {
        for (const auto& [key, cookies] : std::exchange(lost_kept_, {})) {
                if (lost_) {
                        lost_(key, {cookies.begin(), cookies.end()});
                }
        }
}

void Holders::replace() {
        for (const auto& holder : holders_) {
                if (!holder->hand && !holder->queue.empty()) {
                        holder->hand = roster_.fork(Role::kHolder, false);
                }
        }
}

void Holders::retire() {
        std::erase_if(holders_, [&](const auto& holder) {
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
