// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker says of itself to PID 1, as sd_notify(3) would, which waits: for as long as PID 1 reads nothing and
// its queue is full. Every local user may fill that queue, and give PID 1 what keeps it from reading. Here nothing
// waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

class Notifier {
public:
        static constexpr std::size_t kMaxWaiting = 64;  // of more the oldest are forgotten

        // `socket`: of connect_to_manager(); none: nobody listens. Errors: not enough descriptors or memory.
        [[nodiscard]] static Result<std::unique_ptr<Notifier>> start(sd_event* event, OwnedFd socket);
        Notifier(const Notifier&) = delete;
        Notifier& operator=(const Notifier&) = delete;

        // All in this order, each as soon as there is room.
        void say(std::string text) noexcept;

private:
        explicit Notifier(OwnedFd socket) : socket_(std::move(socket)) {}
        [[nodiscard]] Result<void> serve_watchdog(sd_event* event);
        void flush() noexcept;
        [[nodiscard]] int send(const std::string& text) const noexcept;  // errno

        OwnedFd socket_;
        std::deque<std::string> waiting_;
        std::uint64_t watchdog_usec_ = 0;  // between two signs of life; 0: nobody waits for them
        OwnedSource room_;
        OwnedSource watchdog_;
};

}  // namespace sockbroker
