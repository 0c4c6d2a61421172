// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/shares.h"

#include <algorithm>

namespace sockbroker {

std::int64_t Shares::Share::used(std::int64_t now_usec) const {
        return std::max<std::int64_t>(0, used_usec - (now_usec - since_usec) / kRepaidPart);
}

void Shares::connect(uid_t uid) {
        if (shares_.size() >= kMaxUids && !shares_.contains(uid)) {
                std::erase_if(shares_, [](const auto& entry) { return entry.second.connections == 0; });
        }
        shares_[uid].connections++;
}

// What was used is remembered: another connection would be a way around it.
void Shares::disconnect(uid_t uid) {
        const auto share = shares_.find(uid);
        if (share != shares_.end() && --share->second.connections == 0 && share->second.used_usec == 0) {
                shares_.erase(share);
        }
}

std::size_t Shares::connections(uid_t uid) const {
        const auto share = shares_.find(uid);
        return share == shares_.end() ? 0 : share->second.connections;
}

void Shares::charge(uid_t uid, std::int64_t began_usec, std::int64_t ended_usec) {
        Share& share = shares_[uid];
        share.used_usec = std::min(kMostUsec, share.used(ended_usec) + ended_usec - began_usec);
        share.since_usec = ended_usec;
}

std::int64_t Shares::place_in_queue(uid_t uid, std::int64_t now_usec) const {
        const auto share = shares_.find(uid);
        return share == shares_.end() ? 0 : share->second.used(now_usec) / kBurstUsec;
}

}  // namespace sockbroker
