// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The values of policy keys, one function a kind. Pure and strict; whether a user or unit exists on this
// host is never asked.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"

namespace sockbroker {

// "unknown key KEY=": which one was probably meant, or all that there are.
[[nodiscard]] std::string unknown_key(std::string_view key, std::span<const std::string_view> known);

// The words of a value, separated by blanks.
[[nodiscard]] std::vector<std::string_view> split_words(std::string_view value);

// A canonical unit name or an fnmatch glob of one; nothing else is checked of it.
[[nodiscard]] Result<void> check_unit_pattern(std::string_view pattern);

// Whether a unit is meant by a pattern that passed check_unit_pattern(): equal, a template's instance, or the glob.
[[nodiscard]] bool unit_matches(std::string_view pattern, std::string_view unit);

// 65534, the overflow id, is what the kernel shows in place of ids it cannot name; 4294967295 means "no id".
[[nodiscard]] constexpr bool is_overflow_id(std::uint64_t id) {
        return id == 65534 || id == 4294967295;
}

// A name or number of User= (`kind` "user") or Group= ("group").
[[nodiscard]] Result<void> check_account(std::string_view kind, std::string_view account);

// The number, where an account that passed check_account() is one.
[[nodiscard]] std::optional<std::uint32_t> account_number(std::string_view account);

// The name of a network interface, as the kernel takes it.
[[nodiscard]] Result<void> check_interface(std::string_view name);

// 1 yes y true t on, 0 no n false f off, in either case, as systemd.syntax(7) has them.
[[nodiscard]] std::optional<bool> parse_boolean(std::string_view value);

// A value of ListenStream= or ListenDatagram=.
struct Listen {
        std::optional<Prefix> prefix;  // none: ports alone
        PortRange ports;
};
[[nodiscard]] Result<Listen> parse_listen(std::string_view value);

// A value of Source=: of addresses that a client may have.
[[nodiscard]] Result<Prefix> parse_source(std::string_view value);

}  // namespace sockbroker
