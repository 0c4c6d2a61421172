// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Free lists of indices into the kernel's maps: slots, records, ids of services. A program that runs may still use an
// index that nothing names any more, so a retired one rests for an RCU grace period. One grace period serves all that
// rest, and is waited for only when nothing else is free, or nothing that is preferred.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace sockbroker {

class Recycler {
public:
        // While as many as this rest that are preferred, a grace period is worth the wait: less than one in a thousand.
        static constexpr std::size_t kWorthTheWait = 1024;

        Recycler() = default;
        // Numbers up to that are preferred.
        explicit Recycler(std::uint32_t last_preferred) : last_preferred_(last_preferred) {}

        // For so many numbers in all, from 0: then none of the others fails for want of memory.
        void reserve(std::size_t numbers) {
                const auto preferred = std::min<std::size_t>(numbers, std::size_t{last_preferred_} + 1);
                free_.reserve(preferred);
                free_others_.reserve(numbers - preferred);
                resting_.reserve(numbers);
        }
        void add_free(std::uint32_t number) { (is_preferred(number) ? free_ : free_others_).push_back(number); }
        void retire(std::uint32_t number) {
                resting_.push_back(number);
                resting_preferred_ += is_preferred(number) ? 1 : 0;
        }

        // Wait for a grace period and call graced().
        [[nodiscard]] bool wants_grace() const {
                return free_.empty() &&
                       (free_others_.empty() ? !resting_.empty() : resting_preferred_ >= kWorthTheWait);
        }
        void graced() {
                for (const auto number : resting_) {
                        add_free(number);
                }
                resting_.clear();
                resting_preferred_ = 0;
        }

        [[nodiscard]] std::optional<std::uint32_t> take() {
                auto& from = free_.empty() ? free_others_ : free_;
                if (from.empty()) {
                        return std::nullopt;
                }
                const std::uint32_t number = from.back();
                from.pop_back();
                return number;
        }

private:
        [[nodiscard]] bool is_preferred(std::uint32_t number) const { return number <= last_preferred_; }

        std::uint32_t last_preferred_ = std::numeric_limits<std::uint32_t>::max();
        std::vector<std::uint32_t> free_;  // of those that are preferred
        std::vector<std::uint32_t> free_others_;
        std::vector<std::uint32_t> resting_;
        std::size_t resting_preferred_ = 0;
};

}  // namespace sockbroker
