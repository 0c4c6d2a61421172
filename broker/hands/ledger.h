// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whose descriptors the hands that were left behind are busy with, by uid and by unit: subordinate uids are free
// (subuid(5)), and so are units of a user's own below the one that counts. Pure.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sockbroker::hands {

struct Charge {
        uid_t uid = 0;
        std::string unit;       // of the sender, empty: none, or not known
        bool admitted = false;  // policy lets this unit or uid register something

        auto operator<=>(const Charge&) const = default;
};

class Ledger {
public:
        static constexpr std::size_t kMaxPerUid = 2;
        static constexpr std::size_t kMaxPerUnit = 8;  // for who is not admitted
        static constexpr std::size_t kMaxInAll = 64;

        // For so many hands: add() needs no memory then.
        void reserve(std::size_t hands) { all_.reserve(hands); }
        void add(std::uint32_t hand, Charge charge) { all_.push_back({hand, std::move(charge)}); }
        void remove(std::uint32_t hand);

        // No hand for this one until some have come back.
        [[nodiscard]] bool bars(const Charge& charge) const;
        [[nodiscard]] bool bars_uid(uid_t uid) const;
        [[nodiscard]] std::size_t size() const { return all_.size(); }

private:
        struct LeftBehind {
                std::uint32_t hand = 0;
                Charge charge;
        };
        [[nodiscard]] std::size_t of_uid(uid_t uid) const;
        [[nodiscard]] std::size_t of_unit(const std::string& unit) const;

        std::vector<LeftBehind> all_;
};

}  // namespace sockbroker::hands
