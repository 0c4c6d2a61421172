// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Lookups that found no socket, for those who monitor: what the counters of the dispatch program have grown by, once a
// second and only while somebody reads. A packet costs nothing by it.
#pragma once

#include <cstdint>
#include <vector>

#include "broker/daemon/monitor.h"
#include "broker/dataplane/dataplane.h"
#include "broker/policy/policy.h"

namespace sockbroker {

class NoSocket {
public:
        NoSocket(const Dataplane& dataplane, Monitors& monitors) : dataplane_(dataplane), monitors_(monitors) {}

        // One slice of a round, of a millisecond or so. True: the round is not at its end.
        [[nodiscard]] bool sample(const Policy& policy, std::int64_t now_usec);
        // What is counted from here on is new.
        void begin(const Policy& policy, std::int64_t now_usec);

private:
        static constexpr std::int64_t kRoundUsec = 1'000'000;
        static constexpr std::int64_t kSliceUsec = 1'000;

        bool slice(const Policy& policy, std::int64_t until_usec);

        const Dataplane& dataplane_;
        Monitors& monitors_;
        std::vector<std::uint64_t> seen_;  // by id of the service
        std::size_t next_ = 0;             // of this round
        std::int64_t due_usec_ = 0;
};

}  // namespace sockbroker
