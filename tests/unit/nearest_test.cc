// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which word was probably meant: few edits, whatever the case, and none where nothing is near.
#include "broker/base/nearest.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace sockbroker {
namespace {

constexpr std::array<std::string_view, 6> kKnown = {"Unit",         "User",           "Group",
                                                    "ListenStream", "ListenDatagram", "Source"};

std::string meant(std::string_view word) {
        return std::string(nearest(word, kKnown).value_or("-"));
}

TEST(Nearest, FewEdits) {
        EXPECT_EQ(meant("ListenSteam"), "ListenStream");
        EXPECT_EQ(meant("LsitenStream"), "ListenStream") << "two swapped are one edit";
        EXPECT_EQ(meant("ListenStreams"), "ListenStream");
        EXPECT_EQ(meant("listendatagram"), "ListenDatagram") << "case does not count";
        EXPECT_EQ(meant("Sauce"), "Source");
        EXPECT_EQ(meant("USER"), "User");
        EXPECT_EQ(meant("Unut"), "Unit");
}

TEST(Nearest, NothingIsNear) {
        EXPECT_EQ(meant("Frob"), "-");
        EXPECT_EQ(meant("No"), "-");
        EXPECT_EQ(meant("Listen"), "-");
        EXPECT_EQ(meant(""), "-");
        EXPECT_EQ(meant(std::string(100'000, 'x')), "-");
        EXPECT_FALSE(nearest("User", {}));
}

}  // namespace
}  // namespace sockbroker
