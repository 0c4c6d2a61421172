// SPDX-License-Identifier: LGPL-2.1-or-later
//
// So many requests in so long, for each of many peers. Pure: the caller brings the time. A peer is one number (the
// generic cell rate algorithm: the time at which all that it asked for would have been due at the steady rate), so
// that a million uids of one user take no more memory than a few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace sockbroker {

struct RateSettings {
        std::int64_t interval_usec = 0;
        std::uint32_t burst = 0;  // requests in an interval, and at once after one without any; 0 of either: no limit
};

template <class Peer>
class RateLimit {
public:
        static constexpr std::size_t kMaxPeers = 4096;

        explicit RateLimit(RateSettings settings) : settings_(settings) {}

        // 0: it may. Otherwise in how many microseconds the next one may; nothing was taken.
        [[nodiscard]] std::int64_t take(const Peer& peer, std::int64_t now_usec) {
                if (settings_.interval_usec <= 0 || settings_.burst == 0) {
                        return 0;
                }
                const std::int64_t now = now_usec * kScale;
                const std::int64_t interval = settings_.interval_usec * kScale;
                const std::int64_t cost = interval / settings_.burst;
                if (due_.size() >= kMaxPeers && !due_.contains(peer)) {
                        forget_some(now);
                }
                std::int64_t& due = due_.try_emplace(peer, now).first->second;
                const std::int64_t after = std::max(due, now) + cost;
                if (after - now > interval) {
                        return (after - now - interval) / kScale + 1;
                }
                due = after;
                return 0;
        }

private:
        static constexpr std::int64_t kScale = 1000;  // nanoseconds

        // Those that owe nothing; and where too many do, the quarter that owes least, so that this is rare.
        void forget_some(std::int64_t now) {
                std::erase_if(due_, [now](const auto& entry) { return entry.second <= now; });
                if (due_.size() < kMaxPeers * 3 / 4) {
                        return;
                }
                std::vector<std::int64_t> all;
                all.reserve(due_.size());
                for (const auto& [peer, due] : due_) {
                        all.push_back(due);
                }
                const auto quarter = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 4);
                std::ranges::nth_element(all, quarter);
                std::erase_if(due_, [limit = *quarter](const auto& entry) { return entry.second <= limit; });
        }

        RateSettings settings_;
        std::map<Peer, std::int64_t> due_;
};

}  // namespace sockbroker
