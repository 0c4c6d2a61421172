// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets of one message that a holder has kept, while it is not settled what becomes of them. What is not held when
// this ends is given up.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "broker/protocol/request.h"

namespace sockbroker {

class InHolder {
public:
        // Of whoever gives them up; empty once that one has ended, and with it all that is held. Must not throw.
        using GiveUp = std::function<void(const std::string& service, std::uint64_t cookie)>;

        InHolder(std::string service, std::weak_ptr<const GiveUp> give_up)
                : service_(std::move(service)), give_up_(std::move(give_up)) {}
        ~InHolder() {
                if (const auto give_up = give_up_.lock()) {
                        for (std::size_t i = 0; i < count_; i++) {
                                (*give_up)(service_, cookies_.at(i));
                        }
                }
        }
        InHolder(const InHolder&) = delete;
        InHolder& operator=(const InHolder&) = delete;

        void add(std::uint64_t cookie) noexcept {
                if (count_ < cookies_.size()) {
                        cookies_.at(count_++) = cookie;
                }
        }

private:
        std::string service_;
        std::weak_ptr<const GiveUp> give_up_;
        std::array<std::uint64_t, kMaxMessageFds> cookies_{};
        std::size_t count_ = 0;
};

}  // namespace sockbroker
