// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/values.h"

#include <fnmatch.h>
#include <net/if.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>

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

Result<Listen> parse_listen(std::string_view value) {
        if (value.find(' ') != std::string_view::npos || value.find('\t') != std::string_view::npos) {
                return fail(fmt::format("\"{}\" holds a blank, write one binding a line", value));
        }
        const bool bracketed = value.starts_with('[');
        if (!bracketed && value.find_first_of(":./") == std::string_view::npos) {
                const auto ports = parse_ports(value);
                if (!ports) {
                        return std::unexpected(ports.error());
                }
                return Listen{std::nullopt, *ports};
        }
        std::string prefix;
        std::size_t colon = value.rfind(':');
        if (bracketed) {
                const auto close = value.find(']');
                if (close == std::string_view::npos) {
                        return fail(fmt::format("\"{}\" has a [ without ]", value));
                }
                colon = value.find(':', close);
                prefix = std::string(value.substr(1, close - 1));
                const auto length = value.substr(close + 1, std::min(colon, value.size()) - close - 1);
                if (!length.empty() && !length.starts_with('/')) {
                        return fail(fmt::format("\"{}\" is not [ADDRESS]/LEN:PORTS", value));
                }
                if (prefix.find(':') == std::string::npos || prefix.find('/') != std::string::npos) {
                        return fail(
                                fmt::format("brackets hold an IPv6 address and nothing else, \"{}\" is none", prefix));
                }
                prefix += length;
        } else if (colon != std::string_view::npos) {
                prefix = std::string(value.substr(0, colon));
                if (prefix.find(':') != std::string::npos) {
                        return fail(
                                fmt::format("\"{}\" is not ADDRESS/LEN:PORTS, IPv6 addresses stand in brackets: "
                                            "[2001:db8::]/32:53",
                                            value));
                }
        }
        if (colon == std::string_view::npos) {
                return fail(fmt::format("\"{}\" names no ports, write {}:53 or {}:*", value, value, value));
        }
        const auto parsed = parse_prefix(prefix);
        if (!parsed) {
                return std::unexpected(parsed.error());
        }
        const auto ports = parse_ports(value.substr(colon + 1));
        if (!ports) {
                return std::unexpected(ports.error());
        }
        return Listen{*parsed, *ports};
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

std::optional<std::int64_t> parse_span(std::string_view value) {
        constexpr std::int64_t kMsec = 1000;
        constexpr std::int64_t kSec = 1000 * kMsec;
        constexpr std::int64_t kDay = 86'400 * kSec;
        struct Unit {
                std::int64_t usec;
                std::array<std::string_view, 5> names;
        };
        static constexpr std::array kUnits = {
                Unit{1, {"us", "usec", "µs", "μs"}},
                Unit{kMsec, {"ms", "msec"}},
                Unit{kSec, {"s", "sec", "second", "seconds", ""}},
                Unit{60 * kSec, {"m", "min", "minute", "minutes"}},
                Unit{3600 * kSec, {"h", "hr", "hour", "hours"}},
                Unit{kDay, {"d", "day", "days"}},
                Unit{7 * kDay, {"w", "week", "weeks"}},
        };
        constexpr std::string_view kDigits = "0123456789";
        constexpr std::int64_t kMost = 366 * kDay;  // keeps every sum far from overflow
        std::int64_t total = 0;
        bool any = false;
        for (auto rest = value; !rest.empty(); any = true) {
                const auto digits = std::min(rest.find_first_not_of(kDigits), rest.size());
                const auto whole = parse_number(rest.substr(0, digits), static_cast<std::uint64_t>(kMost));
                if (!whole) {
                        return std::nullopt;
                }
                rest.remove_prefix(digits);
                std::string_view fraction;
                if (rest.starts_with('.')) {
                        rest.remove_prefix(1);
                        fraction = rest.substr(0, std::min(rest.find_first_not_of(kDigits), rest.size()));
                        if (fraction.empty()) {
                                return std::nullopt;
                        }
                        rest.remove_prefix(fraction.size());
                }
                const auto blank = std::min(rest.find_first_not_of(' '), rest.size());
                const auto end = std::min(rest.find_first_of(" 0123456789", blank), rest.size());
                const auto word = rest.substr(blank, end - blank);
                const auto unit = std::ranges::find_if(
                        kUnits, [&](const Unit& one) { return std::ranges::find(one.names, word) != one.names.end() &&
                                                              (!word.empty() || one.usec == kSec); });
                if (unit == kUnits.end()) {
                        return std::nullopt;
                }
                const auto count = static_cast<std::int64_t>(*whole);
                if (count > kMost / unit->usec) {
                        return std::nullopt;
                }
                total += count * unit->usec;
                for (std::int64_t part = unit->usec / 10; !fraction.empty() && part > 0; part /= 10) {
                        total += (fraction.front() - '0') * part;
                        fraction.remove_prefix(1);
                }
                if (total > kMost) {
                        return std::nullopt;
                }
                rest.remove_prefix(end);
                rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
        }
        return any ? std::optional(total) : std::nullopt;
}

}  // namespace sockbroker
