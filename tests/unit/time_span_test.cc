// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/time_span.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

using std::chrono::microseconds;

TEST(TimeSpan, IsReadAsSystemdTimeHasIt) {
        const std::pair<const char*, std::int64_t> cases[] = {
                {"0", 0},
                {"30", 30'000'000},
                {"30s", 30'000'000},
                {" 2min 500ms ", 120'500'000},
                {"1min30s", 90'000'000},
                {"1.5h", 5'400'000'000},
                {".5s", 500'000},
                {"7 us", 7},
                {"7µs", 7},
                {"1 2", 3'000'000},
                {"1d", 86'400'000'000},
                {"1month", 2'630'016'000'000},
                {"1y", 31'557'600'000'000},
        };
        for (const auto& [text, expected] : cases) {
                const auto span = parse_time_span(text);
                ASSERT_TRUE(span) << text;
                EXPECT_EQ(*span, microseconds(expected)) << text;
        }
        EXPECT_EQ(*parse_time_span("infinity"), kForever);
        EXPECT_EQ(*parse_time_span("99999999999999999999999y"), kForever);
}

TEST(TimeSpan, WhatIsNoneIsNamed) {
        for (const char* text : {"", " ", "s", "-1", "+1", "1x", "1 foo", "1.", ".", "1,5s", "Infinity", "0x10"}) {
                const auto span = parse_time_span(text);
                ASSERT_FALSE(span) << text;
                EXPECT_NE(span.error().message.find("is no time span"), std::string::npos);
        }
}

}  // namespace
}  // namespace sockbroker
