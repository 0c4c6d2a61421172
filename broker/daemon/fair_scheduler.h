// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Per-uid fair scheduling of the event loop by CPU time used: the less a user has had lately, the earlier its sources
// run. A user who is alone waits for nobody. Pure: the caller brings the time.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>

namespace sockbroker {

class FairScheduler {
public:
        static constexpr double kMemoryUsec = 2'000'000;  // what was used that long ago counts by 1/e
        static constexpr std::size_t kMaxUsers = 4096;
        static constexpr int kLevels = 8;

        void used(uid_t uid, std::int64_t usec, std::int64_t now_usec) {
                if (uses_.size() >= kMaxUsers && !uses_.contains(uid)) {
                        std::erase_if(uses_, [&](const auto& entry) { return level_of(entry.second, now_usec) == 0; });
                        if (uses_.size() >= kMaxUsers) {
                                uses_.clear();  // so many at work at once: all are equal
                        }
                }
                Use& use = uses_[uid];
                use.share = share_of(use, now_usec) + static_cast<double>(usec) / kMemoryUsec;
                use.at_usec = now_usec;
        }

        // 0: less than a hundredth of the time. Each level above means twice as much.
        [[nodiscard]] int level(uid_t uid, std::int64_t now_usec) const {
                const auto found = uses_.find(uid);
                return found == uses_.end() ? 0 : level_of(found->second, now_usec);
        }

private:
        struct Use {
                double share = 0;
                std::int64_t at_usec = 0;
        };

        static double share_of(const Use& use, std::int64_t now_usec) {
                return use.share * std::exp(static_cast<double>(use.at_usec - now_usec) / kMemoryUsec);
        }
        static int level_of(const Use& use, std::int64_t now_usec) {
                const double hundredths = share_of(use, now_usec) * 100;
                return hundredths < 1 ? 0 : std::min(kLevels - 1, 1 + static_cast<int>(std::log2(hundredths)));
        }

        std::map<uid_t, Use> uses_;
};

}  // namespace sockbroker
