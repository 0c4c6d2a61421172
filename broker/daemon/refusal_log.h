// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which refusals are written to the journal: all are counted, but one peer that repeats itself fills no journal, and
// keeps nobody else's out, however many uids it has. Pure: the caller brings the time.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sockbroker {

class RefusalLog {
public:
        static constexpr std::uint32_t kBurst = 20;       // entries of one uid in a window
        static constexpr std::uint32_t kGroupBurst = 60;  // entries of one group
        static constexpr std::int64_t kWindowUsec = 30'000'000;
        static constexpr std::size_t kMaxGroups = 1024;

        struct Bursts {
                std::uint32_t of_uid = kBurst;
                std::uint32_t of_group = kGroupBurst;
        };
        RefusalLog() = default;
        explicit RefusalLog(const Bursts& bursts) : bursts_(bursts) {}

        // Counts a refusal of a peer in this unit (empty: none, or not looked up), or so many that are one entry. To be
        // written: the number of refusals of its group that were left out since the last of them that was written.
        [[nodiscard]] std::optional<std::uint64_t> count(const std::string& unit, uid_t uid, std::int64_t now_usec,
                                                         std::uint64_t number = 1);

        // Refusals that were left out and that no later entry tells of: of windows that are over.
        struct LeftOut {
                std::string unit;
                uid_t first_uid = 0;  // of the lowest and highest of them
                uid_t last_uid = 0;
                std::uint64_t count = 0;
        };
        [[nodiscard]] std::vector<LeftOut> take_left_out(std::int64_t now_usec);

        [[nodiscard]] std::uint64_t total() const { return total_; }

private:
        // Who shares one allowance: the uids that subuid(5) gives to one user, and only within one unit, so that
        // neither many uids nor an honest neighbour in them matter to others. Any other uid stands for itself.
        struct Group {
                std::string unit;
                uid_t uids = 0;  // the first of its range
                auto operator<=>(const Group&) const = default;
        };
        struct Window {
                std::int64_t begin_usec = 0;
                std::uint32_t written = 0;
                std::map<uid_t, std::uint32_t> written_of;  // at most kGroupBurst
                LeftOut left_out;
        };
        using Windows = std::map<Group, Window>;

        [[nodiscard]] static Group group_of(const std::string& unit, uid_t uid);
        Window& window_of(const Group& group, std::int64_t now_usec);
        Windows::iterator end_window(Windows::iterator at);

        Bursts bursts_;
        Windows windows_;
        std::vector<LeftOut> ended_;
        std::uint64_t total_ = 0;
};

}  // namespace sockbroker
