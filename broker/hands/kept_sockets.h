// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets that a holder keeps, by cookie, and what it has to tell PID 1 about them. PID 1 forgets a socket first,
// and says so; only then it is closed here. So PID 1 is never the last to close one, which may take as long as the
// socket's owner likes.
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
        // All descriptors that are open for it.
        [[nodiscard]] std::size_t size() const { return sockets_.size() + news_.size() + told_.size() + 2; }

        // For PID 1, when it has room: errno.
        [[nodiscard]] int store(std::uint64_t cookie, std::string_view name);
        // `cookie`: what is not kept any more, and to be closed then; 0: nothing.
        [[nodiscard]] int unstore(std::uint32_t job, std::uint64_t cookie, std::string_view name);

        struct Forgotten {
                std::uint32_t job = 0;
                OwnedFd socket;
        };
        [[nodiscard]] bool has_news() const { return !news_.empty() || (!told_.empty() && !barrier_); }
        // As much as there is room for. Returns what PID 1 will never answer for.
        [[nodiscard]] std::vector<Forgotten> tell(int manager);
        // Hangs up when PID 1 has come so far; -1: it owes no word.
        [[nodiscard]] int barrier() const { return barrier_.get(); }
        // What it has forgotten by then.
        [[nodiscard]] std::vector<Forgotten> confirmed();

private:
        struct News {
                std::string text;
                OwnedFd socket;  // to be stored, or closed when PID 1 has forgotten it
                bool stores = false;
                std::uint32_t job = 0;
        };
        [[nodiscard]] int queue(News news);
        [[nodiscard]] std::vector<Forgotten> take_told(std::size_t count);

        std::map<std::uint64_t, OwnedFd> sockets_;
        std::deque<News> news_;
        std::deque<Forgotten> told_;  // PID 1 was told to forget them
        std::size_t covered_ = 0;     // so many of those are before the barrier
        OwnedFd barrier_;
};

}  // namespace sockbroker::hands
