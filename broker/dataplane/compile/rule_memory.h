// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The lines of one generation while they are filled: the caller's memory, which is the kernel's own where rules are
// loaded, so that nothing is copied. It need not be cleared: a line is, when it is taken. Writes past the end go to a
// spill buffer, so that no caller has to check each line: check overflowed() when a step is done.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "bpf/layout.h"

namespace sockbroker {

class RuleMemory {
public:
        explicit RuleMemory(std::span<sb_line> room) : room_(room) {}

        [[nodiscard]] std::size_t size() const { return size_; }
        [[nodiscard]] std::size_t room() const { return room_.size(); }
        [[nodiscard]] std::size_t left() const { return room_.size() - std::min(room_.size(), size_); }
        [[nodiscard]] bool overflowed() const { return size_ > room_.size(); }

        // Takes cleared lines or gives the last ones back.
        void resize(std::size_t size) {
                const std::size_t end = std::min(size, room_.size());
                if (end > size_) {
                        std::fill(room_.begin() + static_cast<std::ptrdiff_t>(size_),
                                  room_.begin() + static_cast<std::ptrdiff_t>(end), sb_line{});
                }
                beyond_.resize(size - end);
                size_ = size;
        }
        [[nodiscard]] sb_line& operator[](std::size_t line) {
                return line < room_.size() ? room_[line] : beyond_[line - room_.size()];
        }
        // Lines that are within the room.
        [[nodiscard]] std::span<sb_line> lines(std::size_t first, std::size_t count) {
                return room_.subspan(first, count);
        }

private:
        std::span<sb_line> room_;
        std::size_t size_ = 0;
        std::vector<sb_line> beyond_;
};

}  // namespace sockbroker
