// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sd-event objects with an owner. An I/O handler that returns a negative value is switched off by sd-event for good:
// handlers here always return 0.
#pragma once

#include <systemd/sd-event.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace sockbroker {

struct FreeSource {
        void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using OwnedSource = std::unique_ptr<sd_event_source, FreeSource>;

struct FreeEvent {
        void operator()(sd_event* event) const { sd_event_unref(event); }
};
using OwnedEvent = std::unique_ptr<sd_event, FreeEvent>;

// CLOCK_MONOTONIC, microseconds.
[[nodiscard]] inline std::int64_t steady_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

// How often something was thrown in a callback, for whoever tells of it when there is memory again.
inline std::atomic<std::uint64_t> thrown_in_callbacks = 0;

// Whether it came to its end: false where memory did not suffice.
template <class Act>
bool succeeds(const Act& act) noexcept {
        try {
                act();
                return true;
        } catch (...) {
                thrown_in_callbacks++;
                return false;
        }
}

// What a callback of a C library does: nothing that is thrown may cross it. It can be memory only; that costs the one
// thing that was to be done.
template <class Act>
int guarded(const Act& act) noexcept {
        (void)succeeds(act);
        return 0;
}

// A callback that may be empty; what it throws ends here.
template <class... Values>
void call(const std::function<void(Values...)>& callback, std::type_identity_t<Values>... values) noexcept {
        if (callback) {
                (void)succeeds([&] { callback(std::forward<Values>(values)...); });
        }
}

}  // namespace sockbroker
