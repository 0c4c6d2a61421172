// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusal_log.h"

#include <algorithm>
#include <utility>

namespace sockbroker {

namespace {

// SUB_UID_MIN and SUB_UID_COUNT of login.defs(5).
constexpr uid_t kFirstSubuid = 100'000;
constexpr uid_t kSubuidsOfOne = 65'536;
constexpr std::size_t kMaxEnded = 64;  // beyond that they are added up

void add(RefusalLog::LeftOut& sum, uid_t first_uid, uid_t last_uid, std::uint64_t count) {
        sum.first_uid = sum.count == 0 ? first_uid : std::min(sum.first_uid, first_uid);
        sum.last_uid = sum.count == 0 ? last_uid : std::max(sum.last_uid, last_uid);
        sum.count += count;
}

}  // namespace

RefusalLog::Group RefusalLog::group_of(const std::string& unit, uid_t uid) {
        const uid_t first = uid < kFirstSubuid ? uid : uid - (uid - kFirstSubuid) % kSubuidsOfOne;
        return {unit, first};
}

RefusalLog::Windows::iterator RefusalLog::end_window(Windows::iterator at) {
        auto& [group, window] = *at;
        if (window.left_out.count > 0) {
                if (ended_.size() < kMaxEnded) {
                        window.left_out.unit = group.unit;
                        ended_.push_back(std::move(window.left_out));
                } else {
                        add(ended_.back(), window.left_out.first_uid, window.left_out.last_uid, window.left_out.count);
                        ended_.back().unit.clear();
                }
        }
        return windows_.erase(at);
}

// With no place left the window that began first ends early: its group may write again, which is better than that a new
// one may not write at all.
RefusalLog::Window& RefusalLog::window_of(const Group& group, std::int64_t now_usec) {
        if (const auto found = windows_.find(group); found != windows_.end()) {
                return found->second;
        }
        if (windows_.size() >= kMaxGroups) {
                (void)end_window(std::ranges::min_element(windows_, {},
                                                          [](const auto& entry) { return entry.second.begin_usec; }));
        }
        Window& fresh = windows_[group];
        fresh.begin_usec = now_usec;
        return fresh;
}

std::optional<std::uint64_t> RefusalLog::count(const std::string& unit, uid_t uid, std::int64_t now_usec,
                                               std::uint64_t number) {
        total_ += number;
        Window& window = window_of(group_of(unit, uid), now_usec);
        if (now_usec - window.begin_usec > kWindowUsec) {
                window.begin_usec = now_usec;
                window.written = 0;
                window.written_of.clear();
        }
        const auto of_uid = window.written_of.find(uid);
        if (window.written >= bursts_.of_group ||
            (of_uid != window.written_of.end() && of_uid->second >= bursts_.of_uid)) {
                add(window.left_out, uid, uid, number);
                return std::nullopt;
        }
        window.written++;
        window.written_of[uid]++;
        return std::exchange(window.left_out, {}).count;
}

std::vector<RefusalLog::LeftOut> RefusalLog::take_left_out(std::int64_t now_usec) {
        for (auto at = windows_.begin(); at != windows_.end();) {
                at = now_usec - at->second.begin_usec > kWindowUsec ? end_window(at) : std::next(at);
        }
        return std::exchange(ended_, {});
}

}  // namespace sockbroker
