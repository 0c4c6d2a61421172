// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whose descriptors the hands that were left behind are busy with, and so who gets no hand any more: by uid, by unit
// (for subordinate uids are free, subuid(5), and so are units of a user's own below the one that counts), and in all
// (for one person may have many of both). Asked before a hand is spent, for whatever may keep it waiting. Pure.
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

// By whom one who is slow is remembered: the unit, else the uid.
[[nodiscard]] std::string name_of(const Charge& charge);

// What counts for nobody in particular.
inline constexpr uid_t kNobody = static_cast<uid_t>(-1);

class Ledger {
public:
        static constexpr std::size_t kMaxPerUid = 2;
        static constexpr std::size_t kMaxPerUnit = 4;          // for who is not admitted
        static constexpr std::size_t kMaxOfStrangers = 8;      // for all of those
        static constexpr std::size_t kMaxPerAdmittedUnit = 8;  // of such by who is admitted, for its like
        static constexpr std::size_t kMaxInAll = 48;
        static constexpr std::size_t kReserve = 16;  // beyond, for who was served before
        static constexpr std::size_t kMaxKnown = 256;

        // For so many hands: add() needs no memory then.
        void reserve(std::size_t hands) { all_.reserve(hands); }
        void add(std::uint32_t hand, Charge charge);
        void remove(std::uint32_t hand);

        // A hand has come back in time from sockets of one who is admitted: he is not taken for a stranger, nor do
        // others of his unit count for him, until one does not. Of those that are many the oldest are forgotten, but
        // not while others are left behind.
        void note_served(uid_t uid);

        // No hand for this one until some have come back.
        [[nodiscard]] bool bars(const Charge& charge) const;
        [[nodiscard]] bool bars_uid(uid_t uid) const;
        [[nodiscard]] bool bars_strangers() const;
        // A hand has come back in time from what it sent, and it was admitted.
        [[nodiscard]] bool knows(uid_t uid) const;
        // For whose sake, where it is so: with those of the same name he shares one process that closes nothing.
        [[nodiscard]] std::string why_barred(const Charge& charge) const;
        // Everybody is barred, whoever is known included.
        [[nodiscard]] bool is_full() const { return all_.size() >= kMaxInAll + kReserve; }
        [[nodiscard]] std::size_t size() const { return all_.size(); }

private:
        struct LeftBehind {
                std::uint32_t hand = 0;
                Charge charge;
        };
        template <class Fits>
        [[nodiscard]] std::size_t count(const Fits& fits) const;
        [[nodiscard]] std::size_t of_unit(const Charge& charge) const;

        std::vector<LeftBehind> all_;
        std::vector<uid_t> known_;  // the last one was served last
};

}  // namespace sockbroker::hands
