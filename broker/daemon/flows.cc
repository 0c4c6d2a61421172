// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/flows.h"

namespace sockbroker {

std::optional<std::uint32_t> Flows::of(const Registration& registration, const Distribution& distribution,
                                       std::uint64_t now_usec) {
        if (!distribution.stay || registration.protocol != Protocol::kUdp) {
                return std::nullopt;
        }
        if (counts_.empty() || now_usec - counted_usec_ >= kCountUsec) {
                counts_ = dataplane_.flows();
                counted_usec_ = now_usec;
        }
        return registration.slot < counts_.size() ? counts_[registration.slot] : 0;
}

void Flows::sweep_if_due(std::uint64_t now_usec) {
        if (now_usec - swept_usec_ >= kSweepUsec) {
                dataplane_.sweep_flows();
                swept_usec_ = now_usec;
        }
}

}  // namespace sockbroker
