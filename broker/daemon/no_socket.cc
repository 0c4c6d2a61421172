// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/no_socket.h"

#include <fmt/format.h>

#include <limits>

#include "broker/base/event.h"

namespace sockbroker {

namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

std::string_view then(WhenAbsent when) {
        switch (when) {
        case WhenAbsent::kPass:
                return "went on to the ordinary lookup (WhenAbsent=pass)";
        case WhenAbsent::kNext:
                return "went on to the next binding (WhenAbsent=next)";
        default:
                return "were refused (WhenAbsent=refuse)";
        }
}

}  // namespace

void NoSocket::begin(const Policy& policy, std::int64_t now_usec) {
        seen_.clear();
        next_ = 0;
        due_usec_ = now_usec + kRoundUsec;
        if (slice(policy, now_usec + 5 * kSliceUsec)) {
                due_usec_ = now_usec;
        }
}

bool NoSocket::sample(const Policy& policy, std::int64_t now_usec) {
        if (!monitors_.any() || (next_ == 0 && now_usec < due_usec_)) {
                return false;
        }
        if (next_ == 0) {
                due_usec_ = now_usec + kRoundUsec;
        }
        return slice(policy, now_usec + kSliceUsec);
}

bool NoSocket::slice(const Policy& policy, std::int64_t until_usec) {
        const auto& names = dataplane_.service_names();
        seen_.resize(names.size(), kUnknown);
        for (; next_ < names.size(); next_++) {
                if (names[next_].empty()) {
                        seen_[next_] = kUnknown;
                        continue;
                }
                const auto before = seen_[next_];
                const auto count = dataplane_.counters(static_cast<ServiceId>(next_)).no_socket;
                seen_[next_] = count;
                if (before != kUnknown && count > before) {
                        const Service* service = policy.find(names[next_]);
                        monitors_.tell_no_socket(
                                names[next_], count - before,
                                fmt::format("{} lookup{} found no socket and {}", count - before,
                                            count - before == 1 ? "" : "s",
                                            then(service == nullptr ? WhenAbsent::kRefuse : service->when_absent)));
                }
                if (steady_usec() >= until_usec) {
                        next_++;
                        return next_ < names.size() || (next_ = 0, false);
                }
        }
        next_ = 0;
        return false;
}

}  // namespace sockbroker
