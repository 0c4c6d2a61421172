// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/quarantine.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

namespace sockbroker::hands {

namespace {

// Descriptors of one process: it has the limit that this one has, and raises it as far as it may (roles.cc).
std::size_t room_of_process() {
        rlimit limit{};
        return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<std::size_t>(limit.rlim_max) : 0;
}

}  // namespace

Quarantine::Quarantine(Roster& roster, const Crew::Hooks& hooks)
        : roster_(roster), hooks_(hooks), shares_(room_of_process()) {}

Quarantine::Room& Quarantine::of(const Charge& charge, std::int64_t now_usec) {
        const bool barred = charge.uid == kNobody || roster_.bars(charge);
        std::string reason = barred ? roster_.ledger().why_barred(charge) : name_of(charge);
        auto room = std::ranges::find(rooms_, reason, &Room::reason);
        if (room == rooms_.end() && !reason.empty() && rooms_.size() >= kMaxReasons) {
                reason.clear();
                room = std::ranges::find(rooms_, reason, &Room::reason);
        }
        if (room == rooms_.end()) {
                Room made{.reason = std::move(reason), .charge = {.uid = kNobody}};
                if (!made.reason.empty()) {
                        made.charge = charge;
                        if (barred && made.reason == charge.unit) {
                                made.charge.uid = kNobody;
                        }
                }
                rooms_.push_back(std::move(made));
                room = rooms_.end() - 1;
        }
        if (!barred) {
                room->until_usec = now_usec + kAsideUsec;
        }
        return *room;
}

bool Quarantine::can_take(Room& room) {
        if (room.full && may_retire()) {
                retire(room);
        }
        if (!room.hand) {
                room.hand = roster_.fork(Role::kQuarantine, false);
                room.full = false;
        }
        return room.hand && !room.full;
}

// While as many are ending as may be, one that is full stays as it is.
Quarantine::Room* Quarantine::another(std::int64_t now_usec) {
        auto room = std::ranges::find_if(rooms_, [](const Room& one) { return one.hand && !one.full; });
        if (room == rooms_.end()) {
                if (rooms_.size() > kMaxReasons) {
                        return nullptr;
                }
                rooms_.push_back(Room{.reason = {}, .charge = {.uid = kNobody}});
                room = rooms_.end() - 1;
        }
        room->until_usec = now_usec + kAsideUsec;
        return can_take(*room) ? &*room : nullptr;
}

bool Quarantine::push(std::unique_ptr<Job>& job) {
        const auto now = job->since_usec;
        Room* room = &of(job->charge, now);
        if (!can_take(*room)) {
                room = another(now);
        }
        if (room == nullptr) {
                return false;
        }
        room->queue.emplace_back();
        room->queue.back() = std::move(job);
        dispatch(now);
        return true;
}

void Quarantine::dispatch(std::int64_t now_usec) noexcept {
        for (Room& room : rooms_) {
                if (room.hand && room.hand->idle() && !room.queue.empty()) {
                        // Otherwise it is about to be heard that it died, or there is no memory: the timer tries again.
                        (void)succeeds([&] {
                                if (room.hand->begin(room.queue.front(), now_usec) == 0) {
                                        room.queue.pop_front();
                                }
                        });
                }
        }
}

void Quarantine::retire(Room& room) noexcept {
        roster_.leave_behind(std::move(room.hand), std::nullopt, nullptr, true);
        room.full = false;
}

void Quarantine::tell(const Party& party, bool heard) const {
        if (hooks_.heard) {
                hooks_.heard(party, heard);
        }
}

void Quarantine::count(std::uint32_t child, const Party& party, std::size_t count) {
        if (shares_.add(child, party, count)) {
                tell(party, false);
        }
}

void Quarantine::took(std::uint32_t child, uid_t uid, std::size_t count) noexcept {
        if (uid == 0 || count == 0) {
                return;
        }
        (void)succeeds([&] { this->count(child, {.uid = uid}, count); });
        (void)succeeds([&] {
                if (std::string group = hooks_.group_of ? hooks_.group_of(uid) : ""; !group.empty()) {
                        this->count(child, {.group = std::move(group)}, count);
                }
        });
}

void Quarantine::exited(std::uint32_t child) noexcept {
        shares_.exited(child, [this](const Party& party) { (void)succeeds([&] { tell(party, true); }); });
}

void Quarantine::refused(std::uint32_t child) noexcept {
        const auto room = find(child);
        if (room == rooms_.end()) {
                return;
        }
        room->full = true;
        if (may_retire()) {
                retire(*room);
        }
}

bool Quarantine::is_over(const Room& room) const {
        const Ledger& ledger = roster_.ledger();
        if (room.until_usec != 0) {
                return room.until_usec <= steady_usec();
        }
        return !ledger.bars(room.charge) || (!room.reason.empty() && ledger.why_barred(room.charge) != room.reason);
}

void Quarantine::release() noexcept {
        (void)succeeds([&] {
                for (Room& room : rooms_) {
                        if (!room.queue.empty() || (room.hand && !room.hand->idle()) || !is_over(room)) {
                                continue;
                        }
                        if (room.hand && !may_retire()) {
                                return;
                        }
                        room.until_usec = 0;
                        if (room.hand) {
                                retire(room);
                        }
                }
        });
        std::erase_if(rooms_, [](const Room& room) { return !room.hand && room.queue.empty(); });
}

std::unique_ptr<Job> Quarantine::pop_older(std::int64_t usec) {
        for (Room& room : rooms_) {
                if (!room.queue.empty() && room.queue.front()->since_usec < usec && room.queue.front()->given.empty()) {
                        auto old = std::move(room.queue.front());
                        room.queue.pop_front();
                        return old;
                }
        }
        return nullptr;
}

void Quarantine::fill() noexcept {
        for (Room& room : rooms_) {
                if (!room.hand && !room.queue.empty()) {
                        room.hand = roster_.fork(Role::kQuarantine, false);
                }
        }
}

std::vector<Quarantine::Room>::iterator Quarantine::find(std::uint32_t child) {
        return std::ranges::find_if(rooms_, [&](const Room& room) { return room.hand && room.hand->child() == child; });
}

bool Quarantine::forked(std::uint32_t child, pid_t pid, std::int64_t now_usec) {
        const auto room = find(child);
        if (room == rooms_.end()) {
                return false;
        }
        room->hand->forked(pid);
        dispatch(now_usec);
        return true;
}

std::unique_ptr<Hand> Quarantine::remove(std::uint32_t child) {
        const auto room = find(child);
        return room == rooms_.end() ? nullptr : std::move(room->hand);
}

void Quarantine::add_working(std::vector<Hand*>& all) const {
        for (const Room& room : rooms_) {
                if (room.hand && room.hand->job() != nullptr) {
                        all.push_back(room.hand.get());
                }
        }
}

// What is barred is forgiven when a process has ended, which nothing has to wait for; only what became so meanwhile.
bool Quarantine::settled() const {
        return std::ranges::all_of(rooms_, [&](const Room& room) {
                return room.hand && room.hand->idle() && room.queue.empty() && room.until_usec == 0 && !is_over(room);
        });
}

}  // namespace sockbroker::hands
