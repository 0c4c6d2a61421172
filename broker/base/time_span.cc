// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See time_span.h.
#include "broker/base/time_span.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "broker/base/printable.h"

namespace sockbroker {

namespace {

struct Unit {
        std::string_view name;
        double microseconds;
};

constexpr double kSecond = 1e6, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;
constexpr std::array kUnits = {
        Unit{"", kSecond},
        Unit{"usec", 1},
        Unit{"us", 1},
        Unit{"µs", 1},
        Unit{"msec", 1e3},
        Unit{"ms", 1e3},
        Unit{"seconds", kSecond},
        Unit{"second", kSecond},
        Unit{"sec", kSecond},
        Unit{"s", kSecond},
        Unit{"minutes", kMinute},
        Unit{"minute", kMinute},
        Unit{"min", kMinute},
        Unit{"m", kMinute},
        Unit{"hours", kHour},
        Unit{"hour", kHour},
        Unit{"hr", kHour},
        Unit{"h", kHour},
        Unit{"days", kDay},
        Unit{"day", kDay},
        Unit{"d", kDay},
        Unit{"weeks", 7 * kDay},
        Unit{"week", 7 * kDay},
        Unit{"w", 7 * kDay},
        Unit{"months", 30.44 * kDay},
        Unit{"month", 30.44 * kDay},
        Unit{"M", 30.44 * kDay},
        Unit{"years", 365.25 * kDay},
        Unit{"year", 365.25 * kDay},
        Unit{"y", 365.25 * kDay},
};

constexpr std::string_view kDigits = "0123456789";

// Takes "12" or "1.5" from the front.
std::optional<double> take_number(std::string_view& text) {
        const std::size_t whole = std::min(text.find_first_not_of(kDigits), text.size());
        std::size_t end = whole;
        if (whole < text.size() && text[whole] == '.') {
                end = std::min(text.find_first_not_of(kDigits, whole + 1), text.size());
                if (end == whole + 1) {
                        return std::nullopt;
                }
        }
        if (end == 0 || (whole == 0 && end == 1)) {
                return std::nullopt;
        }
        double value = 0;
        for (const char digit : text.substr(0, whole)) {
                value = value * 10 + (digit - '0');
        }
        double place = 0.1;
        for (std::size_t i = whole + 1; i < end; i++, place /= 10) {
                value += (text[i] - '0') * place;
        }
        text.remove_prefix(end);
        return value;
}

void skip_blanks(std::string_view& text) {
        text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
}

}  // namespace

Result<std::chrono::microseconds> parse_time_span(std::string_view text) {
        if (text == "infinity") {
                return kForever;
        }
        std::string_view left = text;
        double sum = 0;
        skip_blanks(left);
        do {
                const std::optional<double> number = take_number(left);
                skip_blanks(left);
                const std::string_view name = left.substr(0, left.find_first_of("0123456789. \t"));
                const auto* const unit = std::ranges::find(kUnits, name, &Unit::name);
                if (!number || unit == kUnits.end()) {
                        return fail(fmt::format("\"{}\" is no time span, write for example 30s, 2min or 500ms",
                                                printable(text)));
                }
                left.remove_prefix(name.size());
                skip_blanks(left);
                sum += *number * unit->microseconds;
        } while (!left.empty());
        constexpr double kMost = 4e15;  // 127 years, which fit into nanoseconds too
        return sum >= kMost ? kForever : std::chrono::microseconds(std::llround(sum));
}

}  // namespace sockbroker
