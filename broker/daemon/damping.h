// SPDX-License-Identifier: LGPL-2.1-or-later
//
// When a service that comes or goes is announced or withdrawn: after it has been up, or down, for long enough without a
// break. Whoever flaps faster is in neither of both for long enough, and stays as it was. Pure; times are of
// CLOCK_MONOTONIC, in microseconds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "broker/policy/policy.h"

namespace sockbroker {

// Whether a service is up of which these parts are served; none: nobody knows yet. Nothing at all is not up.
[[nodiscard]] inline std::optional<bool> is_up(Announce when, std::span<const std::optional<bool>> served) {
        const bool decisive = when == Announce::kAny;  // one such part is enough
        bool unknown = false;
        for (const auto& part : served) {
                if (part == std::optional(decisive)) {
                        return decisive;
                }
                unknown = unknown || !part;
        }
        return unknown ? std::nullopt : std::optional(!decisive && !served.empty());
}

class Damping {
public:
        struct Spans {
                std::int64_t up_usec = 0;
                std::int64_t down_usec = 0;
        };

        // It is up or down, since then as far as anybody knows. `drained`: withdrawn at once, whatever it is.
        void set(bool up, bool drained, std::int64_t since_usec) {
                if (!known_ || up != up_) {
                        since_usec_ = since_usec;
                        known_ = true;
                }
                up_ = up;
                drained_ = drained;
        }
        // Whether it is announced from now on.
        bool settle(std::int64_t now_usec, const Spans& spans) {
                if (drained_) {
                        announced_ = false;
                } else if (known_ && up_ != announced_ && now_usec >= due_usec(spans)) {
                        announced_ = up_;
                }
                return announced_;
        }
        // When settle() is to be called again; 0: never, for as long as nothing is set.
        [[nodiscard]] std::int64_t next_usec(const Spans& spans) const {
                return !known_ || drained_ || up_ == announced_ ? 0 : due_usec(spans);
        }
        [[nodiscard]] bool announced() const { return announced_; }
        [[nodiscard]] bool up() const { return known_ && up_; }
        [[nodiscard]] bool drained() const { return drained_; }

private:
        [[nodiscard]] std::int64_t due_usec(const Spans& spans) const {
                return since_usec_ + (up_ ? spans.up_usec : spans.down_usec);
        }

        bool known_ = false;
        bool up_ = false;
        bool drained_ = false;
        bool announced_ = false;
        std::int64_t since_usec_ = 0;
};

}  // namespace sockbroker
