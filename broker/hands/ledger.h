// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whose descriptors the hands that were left behind are busy with, by uid and by unit: subordinate uids are free
// (subuid(5)), and so are units of a user's own below the one that counts. Pure.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

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

        void add(const Charge& charge);
        void remove(const Charge& charge);

        // No hand for this one until some have come back.
        [[nodiscard]] bool bars(const Charge& charge) const;
        [[nodiscard]] bool bars_uid(uid_t uid) const;
        [[nodiscard]] std::size_t size() const { return size_; }

private:
        std::map<uid_t, std::size_t> per_uid_;
        std::map<std::string, std::size_t> per_unit_;
        std::size_t size_ = 0;
};

}  // namespace sockbroker::hands
