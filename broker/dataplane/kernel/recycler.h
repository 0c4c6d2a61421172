// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Free lists of indices into the kernel's maps: slots, records, ids of services. A program that runs may still use an
// index that nothing names any more, so a retired one rests for an RCU grace period. One grace period serves all that
// rest, and is waited for only when nothing else is free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace sockbroker {

class Recycler {
public:
        // For so many numbers in all: then none of the others fails for want of memory.
        void reserve(std::size_t numbers) {
                free_.reserve(numbers);
                resting_.reserve(numbers);
        }
        void add_free(std::uint32_t number) { free_.push_back(number); }
        void retire(std::uint32_t number) { resting_.push_back(number); }

        // Nothing is free, but something rests: wait for a grace period and call graced().
        [[nodiscard]] bool wants_grace() const { return free_.empty() && !resting_.empty(); }
        void graced() {
                free_.insert(free_.end(), resting_.begin(), resting_.end());
                resting_.clear();
        }

        [[nodiscard]] std::optional<std::uint32_t> take() {
                if (free_.empty()) {
                        return std::nullopt;
                }
                const std::uint32_t number = free_.back();
                free_.pop_back();
                return number;
        }

private:
        std::vector<std::uint32_t> free_;
        std::vector<std::uint32_t> resting_;
};

}  // namespace sockbroker
