// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The core's two ends of a hand. Through neither can a descriptor come to it, on any kernel: the socket takes nothing
// (SHUT_RD, so that a send to it is EPIPE), and the other is a pipe.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/hands/wire.h"

namespace sockbroker::hands {

class Link {
public:
        struct Ends;
        [[nodiscard]] static Result<Ends> make();

        Link() = default;
        Link(OwnedFd orders, OwnedFd answers) : orders_(std::move(orders)), answers_(std::move(answers)) {}

        [[nodiscard]] explicit operator bool() const { return answers_.valid(); }
        [[nodiscard]] int answers() const { return answers_.get(); }

        // errno, 0 if it is sent. Never waits.
        [[nodiscard]] int send(const Order& order, std::span<const std::uint64_t> cookies = {},
                               std::string_view text = {}, std::span<const int> fds = {}) const;

        // No order comes any more: the hand ends when it looks for one.
        void close_orders() { orders_.reset(); }

        // Calls `each` for answers that are there, as many as one read brings, which says whether they make sense: who
        // goes on writing keeps nobody waiting. False: one does not, or the hand is gone.
        [[nodiscard]] bool receive(const std::function<bool(ParsedAnswer&)>& each);

private:
        OwnedFd orders_;
        OwnedFd answers_;
        std::vector<std::byte> read_;  // of an answer that is not complete yet
};

struct Link::Ends {
        Link core;
        OwnedFd hand_orders;
        OwnedFd hand_answers;
};

}  // namespace sockbroker::hands
