// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What VERB=monitor reads: the entries of the journal as they are made, and counts of lookups that found no socket.
// All readers share one bounded ring of lines and have but a place in it each. One that is slow misses lines, which a
// line of its own then says, and nobody waits for it. Where nobody reads, nothing is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/audit.h"

namespace sockbroker {

class Monitors {
public:
        static constexpr std::size_t kMaxReaders = 32;
        static constexpr std::size_t kMaxLines = 2048;
        static constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

private:
        struct Ring;

public:
        class Reader {
        public:
                explicit Reader(std::shared_ptr<Ring> ring);
                ~Reader();
                Reader(const Reader&) = delete;
                Reader& operator=(const Reader&) = delete;

                // Whole lines that no earlier call gave, of at most `room` bytes together. Nothing: there are none now,
                // and `wake` is called once, as soon as there are.
                [[nodiscard]] std::string take(std::size_t room);
                void on_more(std::function<void()> wake) { wake_ = std::move(wake); }

        private:
                friend class Monitors;
                std::shared_ptr<Ring> ring_;
                std::string begin_;  // the line that comes first
                std::uint64_t next_ = 0;
                bool waits_ = false;
                std::function<void()> wake_;
        };

        Monitors();
        // Null: there are as many as may be.
        [[nodiscard]] std::shared_ptr<Reader> open();
        [[nodiscard]] bool any() const;
        void tell(const Entry& entry);
        void tell_no_socket(const std::string& service, std::uint64_t count, std::string_view message);

private:
        void add(std::string line);
        std::shared_ptr<Ring> ring_;
};

}  // namespace sockbroker
