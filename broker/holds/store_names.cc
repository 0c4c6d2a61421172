// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/store_names.h"

#include <algorithm>
#include <string_view>

namespace sockbroker {

namespace {

constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::size_t kLongest = 5;  // of those that are given out

std::size_t cost(const std::string& name) {
        return name.size() + 1;  // and the colon
}

// All names of one character, then all of two, and so on.
std::string text_of(std::uint32_t number) {
        std::string text;
        for (std::uint64_t left = std::uint64_t{number} + 1; left > 0; left = (left - 1) / kDigits.size()) {
                text.insert(text.begin(), kDigits[(left - 1) % kDigits.size()]);
        }
        return text;
}

std::optional<std::uint32_t> number_of(const std::string& text) {
        if (text.empty() || text.size() > kLongest) {
                return std::nullopt;
        }
        std::uint64_t number = 0;
        for (const char c : text) {
                const auto digit = kDigits.find(c);
                if (digit == std::string_view::npos) {
                        return std::nullopt;
                }
                number = number * kDigits.size() + digit + 1;
        }
        return static_cast<std::uint32_t>(number - 1);
}

}  // namespace

std::optional<std::string> StoreNames::take() {
        while (!free_.empty() && used_.contains(text_of(*free_.begin()))) {
                free_.erase(free_.begin());
        }
        while (free_.empty() && used_.contains(text_of(next_))) {
                next_++;
        }
        const std::uint32_t number = free_.empty() ? next_ : *free_.begin();
        std::string name = text_of(number);
        if (used_.size() >= most_ || bytes_ + cost(name) > kMaxBytes) {
                return std::nullopt;
        }
        if (free_.empty()) {
                next_++;
        } else {
                free_.erase(free_.begin());
        }
        reserve(name);
        return name;
}

void StoreNames::reserve(const std::string& name) {
        if (used_.insert(name).second) {
                bytes_ += cost(name);
        }
}

void StoreNames::release(const std::string& name) {
        if (used_.erase(name) == 0) {
                return;
        }
        bytes_ -= cost(name);
        if (const auto number = number_of(name); number && *number < next_) {
                free_.insert(*number);
        }
}

}  // namespace sockbroker
