// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/holders.h"

#include <algorithm>
#include <utility>

namespace sockbroker::hands {

namespace {

// Services whose sockets are on their way to their holders at once. What is in flight on this machine's UNIX sockets
// must stay below 2,024: beyond, a sender waits for the kernel's garbage collector.
constexpr std::size_t kMaxAdopting = 4;

constexpr std::string_view kNoService = "?";

}  // namespace

Holders::Holder& Holders::of(const std::string& key) {
        if (const auto found = by_key_.find(key); found != by_key_.end()) {
                return *found->second;
        }
        const auto at = by_key_.try_emplace(key).first;
        try {
                lost_kept_.reserve(holders_.size() + 2);
                at->second = holders_.emplace_back(std::make_unique<Holder>()).get();
        } catch (...) {
                by_key_.erase(at);
                throw;
        }
        return *at->second;
}

bool Holders::may_hold(const std::string& key) const {
        return by_key_.contains(key) || holders_.size() < Crew::kMaxHolders;
}

void Holders::push(std::unique_ptr<Job>& job) {
        const auto now = job->since_usec;
        auto& queue = of(job->holder).queue;
        queue.emplace_back();
        queue.back() = std::move(job);
        replace();
        dispatch(now);
}

// So that note() and release() need no memory.
bool Holders::prepare(Holder& holder, Job& job) const {
        if (job.order.kind == OrderKind::kAdopt && adopting() >= kMaxAdopting) {
                return false;
        }
        return succeeds([&] {
                if (!job.order.keep) {
                        job.charge = holder.charge;
                        return;
                }
                holder.charge = job.charge;
                auto& cookies = holder.kept[job.holder];
                cookies.reserve(cookies.size() + kMaxMessageFds);
                holder.make_room(kMaxMessageFds);
        });
}

// In `unwanted`, for all that is kept and so many more.
void Holders::Holder::make_room(std::size_t more) {
        std::size_t all = unwanted.size() + more;
        for (const auto& entry : kept) {
                all += entry.second.size();
        }
        if (unwanted.capacity() < all) {
                unwanted.reserve(2 * all);
        }
}

std::size_t Holders::adopting() const {
        return static_cast<std::size_t>(std::ranges::count_if(holders_, [](const auto& holder) {
                return holder->hand && holder->hand->job() != nullptr &&
                       holder->hand->job()->order.kind == OrderKind::kAdopt;
        }));
}

void Holders::dispatch(std::int64_t now_usec) noexcept {
        for (const auto& holder : holders_) {
                if (!holder->hand || !holder->hand->idle()) {
                        continue;
                }
                // Otherwise it is about to be heard that it died, or there is no memory: the timer tries again.
                if (holder->has_to_release()) {
                        (void)succeeds([&] { order_release(*holder, now_usec); });
                } else if (!holder->queue.empty() && prepare(*holder, *holder->queue.front())) {
                        (void)succeeds([&] {
                                if (holder->hand->begin(holder->queue.front(), now_usec) == 0) {
                                        holder->queue.pop_front();
                                }
                        });
                }
        }
}

bool Holders::Holder::has_to_release() const {
        return std::ranges::any_of(unwanted, [](const Unwanted& one) { return one.job == 0; });
}

// All that PID 1 does not know at once, or one that it does.
bool Holders::order_release(Holder& holder, std::int64_t now_usec) {
        const auto is_named = [](const Unwanted& one) { return !one.name.empty(); };
        auto job = std::make_unique<Job>();
        job->order.job = ++last_job_;
        job->charge = holder.charge;
        for (const Unwanted& one : holder.unwanted) {
                if (!is_named(one) && job->cookies.size() < kMaxMessageFds) {
                        job->cookies.push_back(one.cookie);
                }
        }
        if (!job->cookies.empty()) {
                job->order.kind = OrderKind::kRelease;
                const auto cookies = job->cookies;
                if (holder.hand->begin(job, now_usec) != 0) {
                        return false;
                }
                std::erase_if(holder.unwanted, [&](const Unwanted& one) {
                        return !is_named(one) && std::ranges::find(cookies, one.cookie) != cookies.end();
                });
                return true;
        }
        const auto next = std::ranges::find(holder.unwanted, 0U, &Unwanted::job);
        job->order.kind = OrderKind::kUnstore;
        job->text = next->name;
        if (next->cookie != 0) {
                job->cookies.push_back(next->cookie);
        }
        const std::uint32_t number = job->order.job;
        if (holder.hand->begin(job, now_usec) != 0) {
                return false;
        }
        next->job = number;
        return true;
}

Holders::Holder* Holders::holder_of(const Hand& hand) const {
        const auto holder = std::ranges::find_if(holders_, [&](const auto& one) { return one->hand.get() == &hand; });
        return holder == holders_.end() ? nullptr : holder->get();
}

void Holders::note(const Hand& hand, const Job& job, const ParsedAnswer& answer) noexcept {
        Holder* const holder = holder_of(hand);
        if (holder == nullptr || !job.order.keep) {
                return;
        }
        const auto kept = holder->kept.find(job.holder);
        if (kept == holder->kept.end()) {
                return;
        }
        auto& cookies = kept->second;
        for (const Found& one : answer.found) {
                if (one.staging != Staging::kOffered && one.staging != Staging::kKept) {
                        continue;
                }
                if (std::ranges::find(cookies, one.facts.cookie) == cookies.end()) {
                        cookies.push_back(one.facts.cookie);
                }
                // It was given up while it came again.
                for (Unwanted& given_up : holder->unwanted) {
                        if (given_up.cookie == one.facts.cookie && given_up.job == 0) {
                                given_up.cookie = 0;
                        }
                }
        }
        std::erase_if(holder->unwanted,
                      [](const Unwanted& one) { return one.cookie == 0 && one.name.empty() && one.job == 0; });
        if (cookies.empty()) {
                holder->kept.erase(kept);
        }
}

void Holders::release(const std::string& key, std::uint64_t cookie, std::string name) noexcept {
        const auto holder = by_key_.find(key);
        bool was_kept = false;
        if (holder != by_key_.end()) {
                Kept& kept = holder->second->kept;
                if (const auto mine = kept.find(key); mine != kept.end()) {
                        was_kept = std::erase(mine->second, cookie) != 0;
                }
                was_kept = was_kept && std::ranges::none_of(kept, [&](const auto& entry) {
                                   return std::ranges::find(entry.second, cookie) != entry.second.end();
                           });
        }
        if (was_kept) {
                holder->second->unwanted.push_back({.cookie = cookie, .name = std::move(name)});  // has room
        } else if (!name.empty()) {
                (void)succeeds([&] { forget(std::move(name)); });
        }
}

void Holders::forget(std::string name) {
        Holder& holder = of(std::string(kNoService));
        holder.make_room(1);
        holder.unwanted.push_back({.cookie = 0, .name = std::move(name)});
        replace();
}

bool Holders::owes_a_word() const {
        return std::ranges::any_of(holders_, [](const auto& holder) {
                return std::ranges::any_of(holder->unwanted, [](const Unwanted& one) { return !one.name.empty(); });
        });
}

bool Holders::forgotten(const Hand& hand, std::uint32_t job) noexcept {
        Holder* const holder = holder_of(hand);
        if (holder == nullptr || job == 0) {
                return false;
        }
        const auto found = std::ranges::find(holder->unwanted, job, &Unwanted::job);
        if (found == holder->unwanted.end()) {
                return false;
        }
        const std::string name = std::move(found->name);
        holder->unwanted.erase(found);
        call(hooks_.forgotten, name);
        return true;
}

std::vector<std::uint64_t> Holders::kept(const std::string& key) const {
        const auto holder = by_key_.find(key);
        if (holder == by_key_.end()) {
                return {};
        }
        const auto found = holder->second->kept.find(key);
        return found == holder->second->kept.end() ? std::vector<std::uint64_t>{} : found->second;
}

bool Holders::keeps(const std::string& key, std::uint64_t cookie) const {
        const auto holder = by_key_.find(key);
        if (holder == by_key_.end()) {
                return false;
        }
        const auto found = holder->second->kept.find(key);
        return found != holder->second->kept.end() && std::ranges::find(found->second, cookie) != found->second.end();
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
        return pop_if([&](const Job& job) { return job.since_usec < usec && job.done && job.given.empty(); });
}

std::unique_ptr<Job> Holders::pop_if(const std::function<bool(const Job&)>& fits) {
        for (const auto& holder : holders_) {
                for (auto at = holder->queue.begin(); at != holder->queue.end(); ++at) {
                        if (fits(**at)) {
                                auto found = std::move(*at);
                                holder->queue.erase(at);
                                return found;
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
                        // Whether PID 1 has heard of what it was told last nobody knows: it is told again.
                        std::erase_if(holder->unwanted, [](const Unwanted& one) { return one.name.empty(); });
                        for (Unwanted& one : holder->unwanted) {
                                one.cookie = 0;
                                one.job = 0;
                        }
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
                        if (hooks_.lost && !one.mapped().empty()) {
                                (void)guarded([&] { hooks_.lost(one.key(), one.mapped()); });
                        }
                }
                lost_kept_.pop_back();
        }
}

void Holders::replace() noexcept {
        for (const auto& holder : holders_) {
                if (!holder->hand && (!holder->queue.empty() || holder->has_to_release())) {
                        holder->hand = roster_.fork(Role::kHolder, false);
                }
        }
}

void Holders::retire() {
        std::erase_if(holders_, [&](const auto& holder) {
                if (!holder->hand || holder->hand->idle()) {
                        std::erase_if(holder->kept, [](const auto& entry) { return entry.second.empty(); });
                }
                if (!holder->queue.empty() || !holder->kept.empty() || !holder->unwanted.empty() ||
                    (holder->hand && !holder->hand->idle())) {
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
                return holder->queue.empty() && !holder->has_to_release() && holder->hand &&
                       (!holder->kept.empty() || !holder->unwanted.empty());
        });
}

bool Holders::idle() const {
        return std::ranges::all_of(holders_, [](const auto& holder) {
                return holder->queue.empty() && !holder->has_to_release() &&
                       (!holder->hand || holder->hand->job() == nullptr);
        });
}

}  // namespace sockbroker::hands
