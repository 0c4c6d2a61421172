// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/service_log.h"

#include <iterator>

namespace sockbroker {

ServiceLog::Windows::iterator ServiceLog::end_window(Windows::iterator at) {
        if (at->second.left_out > 0) {
                ended_.push_back({at->first.first, at->first.second, at->second.left_out});
        }
        return windows_.erase(at);
}

ServiceLog::Verdict ServiceLog::count(const std::string& service, Action action, std::uint32_t burst,
                                      std::int64_t now_usec) {
        const std::pair kind(service, action);
        auto at = windows_.find(kind);
        if (at != windows_.end() && now_usec - at->second.begin_usec > kWindowUsec) {
                end_window(at);
                at = windows_.end();
        }
        if (at == windows_.end()) {
                at = windows_.try_emplace(kind, Window{.begin_usec = now_usec}).first;
        }
        Window& window = at->second;
        if (window.written < burst) {
                window.written++;
                return Verdict::kWritten;
        }
        return window.left_out++ == 0 ? Verdict::kFirstLeftOut : Verdict::kLeftOut;
}

std::vector<ServiceLog::LeftOut> ServiceLog::take_left_out(std::int64_t now_usec) {
        for (auto at = windows_.begin(); at != windows_.end();) {
                at = now_usec - at->second.begin_usec > kWindowUsec ? end_window(at) : std::next(at);
        }
        return std::exchange(ended_, {});
}

}  // namespace sockbroker
