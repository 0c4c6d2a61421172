// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What has come of policies since the start.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "broker/base/wall_clock.h"

namespace sockbroker {

struct PolicyStatus {
        std::string degraded;  // why; empty: running
        std::int64_t degraded_since_usec = 0;
        bool degraded_by_trial = false;     // over as soon as the policy on trial is kept
        std::string digest;                 // of the one in force
        std::int64_t trial_until_usec = 0;  // reload --confirm=; 0: it is kept
        std::string refused_digest;         // of the one that was refused last; empty: none was
        std::int64_t refused_since_usec = 0;
        std::uint64_t reloads_taken = 0;
        std::uint64_t reloads_refused = 0;

        // Empty: it is not, or not any more.
        void degrade(std::string why, bool by_trial = false) {
                if (degraded.empty() || why.empty()) {
                        degraded_since_usec = why.empty() ? 0 : wall_usec();
                }
                degraded = std::move(why);
                degraded_by_trial = by_trial;
        }
        void refuse(std::string digest_of_it) {
                refused_digest = std::move(digest_of_it);
                refused_since_usec = wall_usec();
        }
};

}  // namespace sockbroker
