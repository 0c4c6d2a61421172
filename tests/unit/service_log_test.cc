// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/service_log.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

using Verdict = ServiceLog::Verdict;
constexpr std::int64_t kNextWindow = ServiceLog::kWindowUsec + 2;
constexpr std::uint32_t kBurst = 600;

TEST(ServiceLog, WritesFarMoreThanAnHonestServiceNeedsAndThenOnlyCounts) {
        ServiceLog log;
        for (unsigned i = 0; i < kBurst; i++) {
                ASSERT_EQ(log.count("web", Action::kRegister, kBurst, 1), Verdict::kWritten);
        }
        EXPECT_EQ(log.count("web", Action::kRegister, kBurst, 1), Verdict::kFirstLeftOut);
        EXPECT_EQ(log.count("web", Action::kRegister, kBurst, 1), Verdict::kLeftOut);
        EXPECT_EQ(log.count("web", Action::kGone, kBurst, 1), Verdict::kWritten) << "another kind";
        EXPECT_EQ(log.count("api", Action::kRegister, kBurst, 1), Verdict::kWritten) << "another service";
        EXPECT_TRUE(log.take_left_out(2).empty()) << "the window is not over";
        const auto left_out = log.take_left_out(kNextWindow);
        ASSERT_EQ(left_out.size(), 1U);
        EXPECT_EQ(left_out[0].service, "web");
        EXPECT_EQ(left_out[0].action, Action::kRegister);
        EXPECT_EQ(left_out[0].count, 2U);
        EXPECT_TRUE(log.take_left_out(kNextWindow).empty()) << "told once";
}

TEST(ServiceLog, CountsAnewInTheNextWindowAndForgetsNoneOfTheLast) {
        ServiceLog log;
        for (unsigned i = 0; i < kBurst + 5; i++) {
                static_cast<void>(log.count("web", Action::kHandover, kBurst, 1));
        }
        EXPECT_EQ(log.count("web", Action::kHandover, kBurst, kNextWindow), Verdict::kWritten);
        const auto left_out = log.take_left_out(kNextWindow);
        ASSERT_EQ(left_out.size(), 1U);
        EXPECT_EQ(left_out[0].count, 5U);
}

TEST(ServiceLog, WhoMayHaveManySocketsMayReplaceThemAll) {
        EXPECT_EQ(ServiceLog::burst(256), kBurst);
        EXPECT_EQ(ServiceLog::burst(5000), 5000U);
}

}  // namespace
}  // namespace sockbroker
