// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the states of a unit mean for a socket that it registered at 1000.
#include <gtest/gtest.h>

#include "broker/holds/unit_state.h"

namespace sockbroker {
namespace {

Presence judge(const UnitState& state) {
        return presence_of(state, 1000);
}

TEST(UnitState, AServiceThatRunsOnIsThere) {
        EXPECT_EQ(judge({.active = "active", .sub = "running", .began_usec = 900}), Presence::kThere);
        EXPECT_EQ(judge({.active = "reloading", .sub = "reload", .began_usec = 900}), Presence::kThere);
        EXPECT_EQ(judge({.active = "refreshing", .sub = "", .began_usec = 900}), Presence::kThere);
        EXPECT_EQ(judge({.active = "activating", .sub = "start", .began_usec = 900}), Presence::kThere)
                << "Type=notify registers before it is ready";
        EXPECT_EQ(judge({.active = "active", .sub = "running", .has_job = true, .began_usec = 900}), Presence::kThere)
                << "a restart that has not begun";
}

TEST(UnitState, AnotherActivationIsNotTheOneThatRegistered) {
        EXPECT_EQ(judge({.active = "active", .sub = "running", .began_usec = 1001}), Presence::kGone);
        EXPECT_EQ(judge({.active = "activating", .sub = "start", .began_usec = 1001}), Presence::kGone);
        EXPECT_EQ(judge({.active = "activating", .sub = "auto-restart", .began_usec = 1001}), Presence::kGone);
        EXPECT_EQ(judge({.active = "activating", .sub = "auto-restart", .began_usec = 900}), Presence::kGone)
                << "RestartMode=direct does not go through inactive";
        EXPECT_EQ(judge({.active = "active", .sub = "running", .began_usec = 900, .ended_usec = 1001}), Presence::kGone)
                << "and has been active twice then";
        EXPECT_EQ(judge({.active = "active", .sub = "running", .began_usec = 900, .ended_usec = 800}), Presence::kThere)
                << "what ended before the registration is not its end";
}

TEST(UnitState, ACrashAndTheWayToARestartAreAHold) {
        EXPECT_EQ(judge({.active = "deactivating", .sub = "stop-sigterm", .has_job = true, .began_usec = 900}),
                  Presence::kGone);
        EXPECT_EQ(judge({.active = "failed", .sub = "failed", .began_usec = 900}), Presence::kGone);
        EXPECT_EQ(judge({.active = "inactive", .sub = "dead", .has_job = true, .began_usec = 900}), Presence::kGone)
                << "systemctl restart, between stop and start";
        EXPECT_EQ(judge({.active = "inactive", .sub = "dead-before-auto-restart", .began_usec = 900}), Presence::kGone);
}

TEST(UnitState, InactiveWithoutAJobIsAStopOnPurpose) {
        EXPECT_EQ(judge({.active = "inactive", .sub = "dead", .began_usec = 900}), Presence::kStopped);
        EXPECT_EQ(judge({.active = "inactive", .sub = "dead", .began_usec = 0}), Presence::kStopped)
                << "a unit that PID 1 does not know";
}

}  // namespace
}  // namespace sockbroker
