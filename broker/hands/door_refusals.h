// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections that the door has refused and that the core has not heard of. They are added up, so that a flood costs
// the core some records a second, and takes few bytes here however long the core does not listen. Pure: the caller
// brings the time.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "broker/hands/wire.h"

namespace sockbroker::hands {

class DoorRefusals {
public:
        static constexpr std::int64_t kCollectUsec = 1'000'000;
        static constexpr std::size_t kMaxRecords = 64;  // and one for each reason, of all other users

        void count(uid_t uid, DoorRefusal why, std::int64_t now_usec);
        // The time until the next is to be told; 0: now. None: there is none.
        [[nodiscard]] std::optional<std::int64_t> due_in(std::int64_t now_usec) const;
        // Whether it is due or not. It stays until it was told.
        [[nodiscard]] std::optional<RefusedReport> next() const;
        void told() { counts_.erase(counts_.begin()); }

private:
        std::map<std::pair<uid_t, DoorRefusal>, std::uint32_t> counts_;
        std::int64_t first_usec_ = 0;  // when the first of these came
};

}  // namespace sockbroker::hands
