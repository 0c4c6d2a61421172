// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which refusals are written to the journal: all are counted, but one peer that repeats itself fills no journal.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>

namespace sockbroker {

class RefusalLog {
public:
        static constexpr std::uint32_t kBurst = 20;  // entries of one uid in a window
        static constexpr std::int64_t kWindowUsec = 30'000'000;
        static constexpr std::size_t kMaxPeers = 1024;

        // Counts a refusal. To be written: the number of this peer's refusals that were not since its last entry.
        std::optional<std::uint64_t> count(uid_t uid, std::int64_t now_usec);
        [[nodiscard]] std::uint64_t total() const { return total_; }

private:
        struct Window {
                std::int64_t begin_usec = 0;
                std::uint32_t written = 0;
                std::uint64_t suppressed = 0;
        };
        std::map<uid_t, Window> windows_;
        std::uint64_t total_ = 0;
};

}  // namespace sockbroker
