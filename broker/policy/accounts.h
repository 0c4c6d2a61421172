// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the host says of a name of User= or Group=. Three answers: found, not there, and none (NSS: try again,
// unavailable, or too slow). The last is neither of the others: nothing is given and nothing is taken away for it.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker {

enum class AccountKind : std::uint8_t { kUser, kGroup };

struct AccountName {
        AccountKind kind = AccountKind::kUser;
        std::string name;

        auto operator<=>(const AccountName&) const = default;
};

class AccountAnswer {
public:
        // Of a host that answers: the id, or that there is no such account.
        AccountAnswer(std::optional<std::uint32_t> id)  // NOLINT(google-explicit-constructor): as a lookup returns it
                : state_(id ? State::kFound : State::kAbsent), id_(id.value_or(0)) {}
        [[nodiscard]] static AccountAnswer none() { return {}; }

        [[nodiscard]] bool answered() const { return state_ != State::kNone; }
        [[nodiscard]] std::optional<std::uint32_t> id() const {
                return state_ == State::kFound ? std::optional(id_) : std::nullopt;
        }

private:
        enum class State : std::uint8_t { kNone, kAbsent, kFound };
        AccountAnswer() = default;
        State state_ = State::kNone;
        std::uint32_t id_ = 0;
};

// Values of User= and Group= that are no numbers, to what the host says of them.
struct Accounts {
        std::function<AccountAnswer(const std::string&)> user;
        std::function<AccountAnswer(const std::string&)> group;
};

// The name by which somebody was admitted, as the kernel's records keep it; 0: by a number, or by none.
using AccountHash = std::uint64_t;
[[nodiscard]] constexpr AccountHash account_hash(std::string_view account) {  // FNV-1a
        std::uint64_t hash = 0xcbf29ce484222325ULL;
        for (const char c : account) {
                hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
        }
        return hash == 0 ? 1 : hash;
}

}  // namespace sockbroker
