// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/slow_senders.h"

#include <algorithm>
#include <cmath>

#include "broker/base/event.h"

namespace sockbroker::hands {

void SlowSenders::note(const Charge& charge, std::int64_t slept_usec, std::int64_t now_usec) noexcept {
        constexpr double kHalfLifeUsec = 1'000'000;
        (void)succeeds([&] {
                Sender& sender = senders_[name_of(charge)];
                const auto age = static_cast<double>(now_usec - sender.at_usec);
                sender.slept_usec =
                        sender.slept_usec * std::exp2(-age / kHalfLifeUsec) + static_cast<double>(slept_usec);
                sender.at_usec = now_usec;
                if (sender.slept_usec >= kMostUsec) {
                        sender.slow_until_usec = now_usec + kRememberUsec;
                }
                if (senders_.size() > kMaxKnown) {
                        senders_.erase(std::ranges::min_element(
                                senders_, {}, [](const auto& entry) { return entry.second.at_usec; }));
                }
        });
}

bool SlowSenders::has(const Charge& charge, std::int64_t now_usec) const {
        const auto found = senders_.find(name_of(charge));
        return found != senders_.end() && now_usec < found->second.slow_until_usec;
}

}  // namespace sockbroker::hands
