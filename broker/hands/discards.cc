// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/discards.h"

#include <algorithm>
#include <utility>

#include "broker/hands/ledger.h"
#include "broker/hands/wire.h"

namespace sockbroker::hands {

void Discards::add(uid_t uid, std::uint32_t offender, OwnedFd connection) {
        User& user = users_[uid];
        user.waiting[offender].push_back(std::move(connection));
        user.count++;
        size_++;
        give_turn(uid, user);
}

bool Discards::has_too_many(uid_t uid) const {
        const auto user = users_.find(uid);
        return user != users_.end() && user->second.count >= kMaxPerUid;
}

void Discards::unbar(uid_t uid) {
        barred_.erase(uid);
        if (uid == kNobody) {
                give_turns();
        } else if (const auto user = users_.find(uid); user != users_.end()) {
                give_turn(uid, user->second);
        }
}

void Discards::forgive(std::uint32_t offender) {
        kept_.erase(offender);
        give_turns();
}

void Discards::give_turn(uid_t uid, User& user) {
        if (!std::exchange(user.has_turn, true)) {
                turns_.push_back(uid);
        }
}

void Discards::give_turns() {
        for (auto& [uid, user] : users_) {
                give_turn(uid, user);
        }
}

Discards::Waiting::iterator Discards::first_of(uid_t uid, User& user) const {
        if (barred_.contains(uid) || barred_.contains(kNobody)) {
                return user.waiting.end();
        }
        return std::ranges::find_if(user.waiting, [&](const auto& entry) { return !kept_.contains(entry.first); });
}

// Who has nothing that may go loses his turn, until something may.
bool Discards::has_next() {
        while (!turns_.empty()) {
                User& user = users_.at(turns_.front());
                if (first_of(turns_.front(), user) != user.waiting.end()) {
                        return true;
                }
                user.has_turn = false;
                turns_.pop_front();
        }
        return false;
}

Discards::Batch Discards::next() {
        const uid_t uid = turns_.front();
        const auto& [offender, waiting] = *first_of(uid, users_.at(uid));
        Batch batch{.uid = uid, .offender = offender, .connections = {}};
        for (auto one = waiting.begin(); one != waiting.end() && batch.connections.size() < kMaxDiscarded; ++one) {
                batch.connections.push_back(one->get());
        }
        return batch;
}

void Discards::sent(const Batch& batch) {
        User& user = users_.at(batch.uid);
        const auto waiting = user.waiting.find(batch.offender);
        const std::size_t count = batch.connections.size();
        waiting->second.erase(waiting->second.begin(), waiting->second.begin() + static_cast<std::ptrdiff_t>(count));
        if (waiting->second.empty()) {
                user.waiting.erase(waiting);
        }
        user.count -= count;
        size_ -= count;
        turns_.pop_front();
        user.has_turn = false;
        if (user.count == 0) {
                users_.erase(batch.uid);
        } else {
                give_turn(batch.uid, user);
        }
}

}  // namespace sockbroker::hands
