// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door_refusals.h"

#include <algorithm>
#include <limits>

#include "broker/hands/ledger.h"

namespace sockbroker::hands {

void DoorRefusals::count(uid_t uid, DoorRefusal why, std::int64_t now_usec) {
        if (counts_.empty()) {
                first_usec_ = now_usec;
        }
        const bool known = counts_.size() < kMaxRecords || counts_.contains({uid, why});
        std::uint32_t& sum = counts_[{known ? uid : kNobody, why}];
        sum += sum < std::numeric_limits<std::uint32_t>::max() ? 1 : 0;
}

std::optional<std::int64_t> DoorRefusals::due_in(std::int64_t now_usec) const {
        if (counts_.empty()) {
                return std::nullopt;
        }
        return std::max<std::int64_t>(first_usec_ + kCollectUsec - now_usec, 0);
}

std::optional<RefusedReport> DoorRefusals::next() const {
        if (counts_.empty()) {
                return std::nullopt;
        }
        const auto& [key, sum] = *counts_.begin();
        return RefusedReport{.uid = key.first, .why = key.second, .count = sum};
}

}  // namespace sockbroker::hands
