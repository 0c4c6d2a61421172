// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy of one file that has no mistake.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "broker/policy/parse.h"

namespace sockbroker::test {

inline Policy policy_of(const std::string& text) {
        auto parsed = parse_policy({{"x.conf", text}}, {});
        EXPECT_TRUE(parsed.policy) << parsed.diagnostics.at(0).to_string();
        return std::move(*parsed.policy);
}

}  // namespace sockbroker::test
