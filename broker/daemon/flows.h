// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How many flows of UDP each socket of a service with UdpFlows=stay has, for `list`, and when their table is swept.
// Both look at all of it, which takes up to a millisecond: so no more often than is worth it, whoever asks.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "broker/dataplane/dataplane.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Flows {
public:
        explicit Flows(Dataplane& dataplane) : dataplane_(dataplane) {}

        // None where flows do not stay.
        [[nodiscard]] std::optional<std::uint32_t> of(const Registration& registration,
                                                      const Distribution& distribution, std::uint64_t now_usec);

        // To be called now and then, every few minutes at least.
        void sweep_if_due(std::uint64_t now_usec);

private:
        static constexpr std::uint64_t kCountUsec = 1'000'000;
        static constexpr std::uint64_t kSweepUsec = std::uint64_t{600} * 1'000'000;

        Dataplane& dataplane_;
        std::vector<std::uint32_t> counts_;  // by slot, at counted_usec_
        std::uint64_t counted_usec_ = 0;
        std::uint64_t swept_usec_ = 0;
};

}  // namespace sockbroker
