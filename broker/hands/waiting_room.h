// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections of users who have as many as they may: each waits here for one of its user's to end. So of many that come
// at once, as when the broker was away, none is refused, and the core has no more of one user than before.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>

#include "broker/base/owned_fd.h"

namespace sockbroker::hands {

class WaitingRoom {
public:
        static constexpr std::size_t kMaxOfUser = 256;
        static constexpr std::size_t kMaxInAll = 1024;

        explicit WaitingRoom(std::size_t most) : most_(std::min(most, kMaxInAll)) {}

        struct Guest {
                OwnedFd fd;
                pid_t pid = 0;
                bool labels = false;
        };

        [[nodiscard]] bool has_room(uid_t uid) const {
                const auto found = guests_.find(uid);
                return size_ < most_ && (found == guests_.end() || found->second.size() < kMaxOfUser);
        }
        [[nodiscard]] bool has(uid_t uid) const { return guests_.contains(uid); }
        void add(uid_t uid, Guest guest) {
                guests_[uid].push_back(std::move(guest));
                size_++;
        }
        // Who waits longest of this user's.
        [[nodiscard]] std::optional<Guest> take(uid_t uid) {
                const auto found = guests_.find(uid);
                if (found == guests_.end()) {
                        return std::nullopt;
                }
                std::optional<Guest> guest(std::move(found->second.front()));
                found->second.pop_front();
                size_--;
                if (found->second.empty()) {
                        guests_.erase(found);
                }
                return guest;
        }

private:
        std::unordered_map<uid_t, std::deque<Guest>> guests_;  // none of them is empty
        const std::size_t most_;
        std::size_t size_ = 0;
};

}  // namespace sockbroker::hands
