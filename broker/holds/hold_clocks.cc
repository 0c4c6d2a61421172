// SPDX-License-Identifier: LGPL-2.1-or-later
//
// When holds end by themselves: one timer, for the one that ends next.
#include <utility>

#include "broker/holds/holds.h"

namespace sockbroker {

void Holds::ask_again_later() {
        constexpr std::uint64_t kLaterUsec = 2'000'000;
        if (again_) {
                return;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, kLaterUsec, 0,
                [](sd_event_source*, std::uint64_t, void* self) {
                        auto* holds = static_cast<Holds*>(self);
                        holds->again_.reset();
                        return guarded(
                                [&] { holds->look_at_each([](const Held& held) { return !held.unit.empty(); }); });
                },
                this);
        again_.reset(r < 0 ? nullptr : source);
}

void Holds::set_clock(Kept& kept, std::int64_t gone_usec, std::int64_t hold_usec) {
        Held& held = kept.held;
        const auto before = ends_.empty() ? 0 : ends_.begin()->first;
        if (kept.ends_usec != 0) {
                ends_.erase({kept.ends_usec, held.key});
        }
        held.gone_usec = gone_usec;
        held.hold_usec = hold_usec;
        kept.ends_usec = gone_usec == 0 ? 0 : held.until_usec != 0 ? held.until_usec : gone_usec + hold_usec;
        if (kept.ends_usec != 0) {
                ends_.insert({kept.ends_usec, held.key});
        }
        if (before != (ends_.empty() ? 0 : ends_.begin()->first)) {
                set_timer();
        }
}

void Holds::set_timer() {
        const auto next = ends_.empty() ? 0 : ends_.begin()->first;
        timer_.reset();
        if (next == 0) {
                return;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time(
                event_, &source, CLOCK_MONOTONIC, static_cast<std::uint64_t>(next), 1,
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([&] { static_cast<Holds*>(self)->expire(); });
                },
                this);
        timer_.reset(r < 0 ? nullptr : source);
}

void Holds::expire() {
        const auto now = steady_usec();
        std::vector<HoldKey> over;
        for (const auto& [when, key] : ends_) {
                if (when > now) {
                        break;
                }
                over.push_back(key);
        }
        for (const auto& key : over) {
                const auto found = kept_.find(key);
                if (found == kept_.end()) {
                        continue;
                }
                Kept& kept = found->second;
                const bool spanned = std::exchange(kept.held.until_usec, 0) != 0;
                set_clock(kept, kept.held.gone_usec, kept.held.hold_usec);
                if (kept.ends_usec <= now) {
                        end(key, spanned ? HoldEnd::kSpanOver : HoldEnd::kExpired);
                } else {
                        look_at(key);  // a stop on purpose does not count as a crash any more
                }
        }
        set_timer();
}

}  // namespace sockbroker
