// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who has had more than a share of the event loop lately: such users wait behind all others, and take turns among
// themselves. Nobody who is alone waits for anything. Pure: the caller brings the time.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

namespace sockbroker {

class Turns {
public:
        // A hundredth of the time, of which ten milliseconds may come at once.
        static constexpr std::int64_t kShare = 100;
        static constexpr std::int64_t kWindowUsec = 1'000'000;
        static constexpr std::int64_t kLongestUsec = 10'000'000;  // for so long nobody is behind who has stopped
        static constexpr std::size_t kMaxUsers = 4096;

        void used(uid_t uid, std::int64_t usec, std::int64_t now_usec) {
                if (due_.size() >= kMaxUsers && !due_.contains(uid)) {
                        std::erase_if(due_, [now_usec](const auto& entry) { return entry.second <= now_usec; });
                        if (due_.size() >= kMaxUsers) {
                                due_.clear();  // so many at work at once: all are equal
                        }
                }
                std::int64_t& due = due_[uid];
                due = std::min(std::max(due, now_usec) + usec * kShare, now_usec + kWindowUsec + kLongestUsec);
        }

        [[nodiscard]] bool is_behind(uid_t uid, std::int64_t now_usec) const {
                const auto found = due_.find(uid);
                return found != due_.end() && found->second > now_usec + kWindowUsec;
        }

private:
        std::map<uid_t, std::int64_t> due_;  // when the time used would have been due at a steady share
};

}  // namespace sockbroker
