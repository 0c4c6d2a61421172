// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Entries of a map, each of which is somebody's own for as long as he has it: none is given out that is in use.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace sockbroker {

class Parking {
        using Free = std::vector<std::uint32_t>;

public:
        // Given back when it is destroyed, which may be after the rest has ended.
        class Place {
        public:
                Place(Place&&) noexcept = default;
                Place(const Place&) = delete;
                Place& operator=(const Place&) = delete;
                Place& operator=(Place&&) = delete;
                ~Place() {
                        if (free_) {
                                free_->push_back(entry_);  // for which there is room
                        }
                }

                [[nodiscard]] std::uint32_t entry() const { return entry_; }

        private:
                friend class Parking;
                Place(std::shared_ptr<Free> free, std::uint32_t entry) : free_(std::move(free)), entry_(entry) {}

                std::shared_ptr<Free> free_;
                std::uint32_t entry_;
        };

        Parking(std::uint32_t first, std::uint32_t count) : free_(std::make_shared<Free>()) {
                free_->reserve(count);
                for (std::uint32_t i = count; i > 0; i--) {
                        free_->push_back(first + i - 1);
                }
        }

        // Nothing: all are in use.
        [[nodiscard]] std::optional<Place> take() {
                if (free_->empty()) {
                        return std::nullopt;
                }
                Place place(free_, free_->back());
                free_->pop_back();
                return place;
        }

private:
        std::shared_ptr<Free> free_;
};

}  // namespace sockbroker
