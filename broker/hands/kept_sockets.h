// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets that a holder keeps, by cookie, and what it has to tell PID 1 about them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker::hands {

class KeptSockets {
public:
        static constexpr std::size_t kMaxWaiting = 8192;

        // One that is kept already is closed instead.
        void keep(std::uint64_t cookie, OwnedFd socket) { sockets_.try_emplace(cookie, std::move(socket)); }
        void release(std::span<const std::uint64_t> cookies);
        [[nodiscard]] int find(std::uint64_t cookie) const;  // -1: none
        [[nodiscard]] std::size_t size() const { return sockets_.size(); }

        // For PID 1, when it has room: errno.
        [[nodiscard]] int store(std::uint64_t cookie, std::string_view name);
        [[nodiscard]] int unstore(std::string_view name);
        [[nodiscard]] bool has_news() const { return !news_.empty(); }
        void tell(int manager);  // as much as there is room for

private:
        struct News {
                std::string text;
                OwnedFd socket;  // a duplicate; none: to be removed
        };
        [[nodiscard]] int queue(std::string text, OwnedFd socket);

        std::map<std::uint64_t, OwnedFd> sockets_;
        std::deque<News> news_;
};

}  // namespace sockbroker::hands
