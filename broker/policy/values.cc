// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/values.h"

#include <fnmatch.h>
#include <net/if.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/base/nearest.h"

namespace sockbroker {

namespace {

constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kDigits = "0123456789";
constexpr std::size_t kMaxUnitName = 255;  // UNIT_NAME_MAX of systemd less the terminator

bool in(char c, std::string_view set) {
        return set.find(c) != std::string_view::npos;
}

bool brackets_close(std::string_view pattern) {
        for (std::size_t i = 0; i < pattern.size(); i++) {
                if (pattern[i] != '[') {
                        continue;
                }
                // A ] right after [ or [! stands for itself.
                std::size_t from = i + 1;
                from += from < pattern.size() && in(pattern[from], "!^") ? 1 : 0;
                i = pattern.find(']', from + 1);
                if (i == std::string_view::npos) {
                        return false;
                }
        }
        return true;
}

}  // namespace

std::string unknown_key(std::string_view key, std::span<const std::string_view> known) {
        if (const auto meant = nearest(key, known)) {
                return fmt::format("unknown key {}=, did you mean {}=?", key, *meant);
        }
        return fmt::format("unknown key {}=, this version takes {}=", key, fmt::join(known, "= "));
}

std::vector<std::string_view> split_words(std::string_view value) {
        std::vector<std::string_view> words;
        while (true) {
                const auto start = value.find_first_not_of(" \t");
                if (start == std::string_view::npos) {
                        return words;
                }
                value.remove_prefix(start);
                const auto end = std::min(value.find_first_of(" \t"), value.size());
                words.push_back(value.substr(0, end));
                value.remove_prefix(end);
        }
}

Result<void> check_unit_pattern(std::string_view pattern) {
        if (pattern.size() > kMaxUnitName) {
                return fail(fmt::format("unit name of {} bytes, at most {} are taken", pattern.size(), kMaxUnitName));
        }
        const auto wrong = std::find_if(pattern.begin(), pattern.end(), [](char c) {
                return !in(c, kLetters) && !in(c, kDigits) && !in(c, ":-_.\\@*?[]!^");
        });
        if (wrong != pattern.end()) {
                return fail(fmt::format("unit name \"{}\" holds {}, which no unit name can (systemd-escape writes it)",
                                        pattern, *wrong));
        }
        const auto dot = pattern.rfind('.');
        const auto suffix = dot == std::string_view::npos ? std::string_view{} : pattern.substr(dot);
        if (suffix != ".service" && suffix != ".socket" && suffix != ".scope") {
                return fail(fmt::format("unit name \"{}\" does not end in .service, .socket or .scope", pattern));
        }
        if (dot == 0 || pattern[0] == '@') {
                return fail(fmt::format("unit name \"{}\" has nothing before its {}", pattern, dot == 0 ? '.' : '@'));
        }
        if (!brackets_close(pattern.substr(0, dot))) {
                return fail(fmt::format("glob \"{}\" has a [ without ]", pattern));
        }
        return {};
}

bool unit_matches(std::string_view pattern, std::string_view unit) {
        if (unit.empty()) {
                return false;
        }
        if (pattern == unit) {
                return true;
        }
        std::string glob(pattern);
        const auto dot = glob.rfind('.');
        if (glob[dot - 1] == '@') {
                // x@.service is a template: it never runs itself, so it stands for all its instances.
                glob.insert(dot, "?*");
        }
        // \ is an ordinary character of unit names (home-a\x2db.service), as it is for systemctl's globs.
        return fnmatch(glob.c_str(), std::string(unit).c_str(), FNM_NOESCAPE) == 0;
}

std::optional<std::uint32_t> account_number(std::string_view account) {
        const auto number = parse_number(account, 4294967295);
        return number ? std::optional(static_cast<std::uint32_t>(*number)) : std::nullopt;
}

Result<void> check_account(std::string_view kind, std::string_view account) {
        if (in(account[0], kDigits)) {
                const auto number = account_number(account);
                if (!number || (account.size() > 1 && account[0] == '0')) {
                        return fail(fmt::format("{} \"{}\" is neither a name nor a number from 0 to 4294967294", kind,
                                                account));
                }
                if (is_overflow_id(*number)) {
                        return fail(
                                fmt::format("{} {} stands for ids that the kernel cannot name, give the {} a number "
                                            "of its own",
                                            kind, account, kind));
                }
                return {};
        }
        // Wider than useradd(8) allows, for directories bring names like web@example.org and HOST$.
        const bool good = account.size() <= 255 && (in(account[0], kLetters) || account[0] == '_') &&
                          std::all_of(account.begin(), account.end(),
                                      [](char c) { return in(c, kLetters) || in(c, kDigits) || in(c, "._@$-"); });
        if (!good) {
                return fail(
                        fmt::format("{} \"{}\" is not a name (letters, digits and ._@$-) or a number", kind, account));
        }
        return {};
}

// dev_valid_name() of net/core/dev.c; blanks cannot stand in a word.
Result<void> check_interface(std::string_view name) {
        if (name.size() >= IFNAMSIZ) {
                return fail(fmt::format("interface \"{}\" is longer than the {} characters that a name may have", name,
                                        IFNAMSIZ - 1));
        }
        if (name == "." || name == ".." || name.find_first_of("/:") != std::string_view::npos) {
                return fail(fmt::format("interface \"{}\" is not a name that the kernel takes", name));
        }
        return {};
}

namespace {

bool is_one(const Prefix& prefix) {
        return prefix.length == address_bits(prefix.address.family);
}

bool is_unspecified(const Prefix& prefix) {
        return is_one(prefix) && prefix.address == Address{.family = prefix.address.family, .bytes = {}};
}

bool is_broadcast(const Prefix& prefix) {
        return is_one(prefix) && is_broadcast(prefix.address);
}

bool is_multicast(const Prefix& prefix) {
        return prefix.length >= (prefix.address.family == Family::kIpv4 ? 4 : 8) && is_multicast(prefix.address);
}

// Destinations that no packet at the hook has.
Result<void> check_destination(const Prefix& prefix, std::string_view value, std::string_view ports) {
        if (is_unspecified(prefix)) {
                return fail(fmt::format(
                        "\"{}\" is one address, which no packet is sent to; write {} for any address of "
                        "both families, or {}:{} for any address of this family",
                        value, ports, prefix.address.family == Family::kIpv4 ? "0.0.0.0/0" : "[::]/0", ports));
        }
        if (is_broadcast(prefix)) {
                return fail(
                        fmt::format("\"{}\" is the broadcast address: broadcasts never reach the dispatch, let the "
                                    "service bind to them itself",
                                    value));
        }
        if (is_multicast(prefix)) {
                return fail(
                        fmt::format("\"{}\" is multicast, which never reaches the dispatch, let the service join the "
                                    "group and bind to it itself",
                                    value));
        }
        return {};
}

}  // namespace

namespace {

// "2001:db8::/32" of "[2001:db8::]/32:53", which a binding would be; else empty.
std::string source_of_binding(std::string_view value) {
        const auto close = value.find(']');
        if (!value.starts_with('[') || close == std::string_view::npos) {
                return {};
        }
        const auto length = value.substr(close + 1, value.find(':', close) - close - 1);
        return fmt::format("{}{}", value.substr(1, close - 1), length);
}

}  // namespace

Result<Prefix> parse_source(std::string_view value) {
        auto prefix = parse_prefix(value);
        if (const auto meant = source_of_binding(value); !meant.empty()) {
                prefix = parse_prefix(meant);
                return prefix ? fail(fmt::format("\"{}\": Source= takes neither brackets nor ports, write {}", value,
                                                 meant))
                              : prefix;
        }
        if (!prefix) {
                return prefix;
        }
        if (is_unspecified(*prefix)) {
                return fail(
                        fmt::format("\"{}\" is one address, which no client has; write {} for any client of this "
                                    "family, or no Source= for any of both",
                                    value, prefix->address.family == Family::kIpv4 ? "0.0.0.0/0" : "::/0"));
        }
        if (is_broadcast(*prefix) || is_multicast(*prefix)) {
                return fail(fmt::format("\"{}\" is {}, which no client has, write the addresses that clients ask from",
                                        value, is_broadcast(*prefix) ? "the broadcast address" : "multicast"));
        }
        return prefix;
}

namespace {

Result<Listen> parse_one_listen(std::string_view value) {
        const auto holds = [](std::string_view text, char c) { return text.find(c) != std::string_view::npos; };
        const bool bracketed = value.starts_with('[');
        std::size_t colon = value.rfind(':');
        if (!bracketed && colon == std::string_view::npos && !holds(value, '.') && !holds(value, '/')) {
                const auto ports = parse_ports(value);
                if (!ports) {
                        return std::unexpected(ports.error());
                }
                return Listen{std::nullopt, *ports};
        }
        std::string_view prefix;
        std::string joined;
        if (bracketed) {
                const auto close = value.find(']');
                if (close == std::string_view::npos) {
                        return fail(fmt::format("\"{}\" has a [ without ]", value));
                }
                colon = value.find(':', close);
                prefix = value.substr(1, close - 1);
                const auto length = value.substr(close + 1, std::min(colon, value.size()) - close - 1);
                if (!length.empty() && !length.starts_with('/')) {
                        return fail(fmt::format("\"{}\" is not [ADDRESS]/LEN:PORTS", value));
                }
                if (!holds(prefix, ':') || holds(prefix, '/')) {
                        return fail(
                                fmt::format("brackets hold an IPv6 address and nothing else, \"{}\" is none", prefix));
                }
                joined = prefix;
                joined += length;
                prefix = joined;
        } else if (colon != std::string_view::npos) {
                prefix = value.substr(0, colon);
                if (holds(prefix, ':')) {
                        return fail(
                                fmt::format("\"{}\" is not ADDRESS/LEN:PORTS, IPv6 addresses stand in brackets: "
                                            "[2001:db8::]/32:53",
                                            value));
                }
        }
        if (colon == std::string_view::npos) {
                return fail(fmt::format("\"{}\" names no ports, write {}:53 or {}:*", value, value, value));
        }
        if (prefix == "*") {
                return fail(fmt::format(
                        "\"{}\" has * for an address, which only ports can be; write the ports alone for any "
                        "address: {}",
                        value, value.substr(colon + 1)));
        }
        const auto parsed = parse_prefix(prefix);
        if (!parsed) {
                return std::unexpected(parsed.error());
        }
        const auto ports = parse_ports(value.substr(colon + 1));
        if (!ports) {
                return std::unexpected(ports.error());
        }
        if (auto checked = check_destination(*parsed, value, value.substr(colon + 1)); !checked) {
                return std::unexpected(checked.error());
        }
        return Listen{*parsed, *ports};
}

}  // namespace

Result<Listen> parse_listen(std::string_view value) {
        auto listen = parse_one_listen(value);
        if (!listen && value.find_first_of(" \t") != std::string_view::npos) {
                return fail(fmt::format("\"{}\" holds a blank, write one binding a line", value));
        }
        return listen;
}

std::optional<bool> parse_boolean(std::string_view value) {
        const std::string text(value);  // strcasecmp() wants a NUL
        const auto means = [&](const char* word) { return strcasecmp(text.c_str(), word) == 0; };
        if (std::ranges::any_of(std::array{"1", "yes", "y", "true", "t", "on"}, means)) {
                return true;
        }
        if (std::ranges::any_of(std::array{"0", "no", "n", "false", "f", "off"}, means)) {
                return false;
        }
        return std::nullopt;
}

}  // namespace sockbroker
