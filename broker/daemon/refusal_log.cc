// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusal_log.h"

#include <utility>

namespace sockbroker {

std::optional<std::uint64_t> RefusalLog::count(uid_t uid, std::int64_t now_usec) {
        total_++;
        if (windows_.size() >= kMaxPeers && !windows_.contains(uid)) {
                std::erase_if(windows_,
                              [&](const auto& entry) { return now_usec - entry.second.begin_usec > kWindowUsec; });
                if (windows_.size() >= kMaxPeers) {
                        return std::nullopt;
                }
        }
        Window& window = windows_[uid];
        if (now_usec - window.begin_usec > kWindowUsec) {
                window.begin_usec = now_usec;
                window.written = 0;
        }
        if (window.written >= kBurst) {
                window.suppressed++;
                return std::nullopt;
        }
        window.written++;
        return std::exchange(window.suppressed, 0);
}

}  // namespace sockbroker
