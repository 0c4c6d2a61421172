// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who gets a hand next, and who gets none.
#include <gtest/gtest.h>

#include <set>

#include "broker/hands/job_queue.h"
#include "broker/hands/ledger.h"
#include "broker/hands/process_state.h"
#include "broker/hands/slow_senders.h"

namespace sockbroker::hands {
namespace {

std::optional<std::uint64_t> pop(JobQueue& queue, std::size_t hands, std::int64_t now_usec) {
        const auto job = queue.next(hands, now_usec);
        if (job) {
                queue.start();
        }
        return job;
}

TEST(JobQueue, NobodyGetsAllHands) {
        JobQueue queue;
        for (std::uint64_t i = 0; i < 4; i++) {
                queue.push("greedy", {i, 0});
        }
        EXPECT_EQ(pop(queue, 2, 0), 0U);
        EXPECT_EQ(pop(queue, 2, 0), std::nullopt);
        queue.push("modest", {10, 0});
        EXPECT_EQ(pop(queue, 2, 0), 10U);
        queue.end("greedy", 10, 0);
        EXPECT_EQ(pop(queue, 2, 0), 1U);
}

TEST(JobQueue, OneHandIsForEverybody) {
        JobQueue queue;
        queue.push("a", {1, 0});
        EXPECT_EQ(pop(queue, 1, 0), 1U);
}

TEST(JobQueue, WhoHasHadLeastIsNext) {
        JobQueue queue;
        for (std::uint64_t i = 0; i < 3; i++) {
                queue.push("a", {i, 0});
                queue.push("b", {10 + i, 0});
        }
        EXPECT_EQ(pop(queue, 2, 0), 0U);
        EXPECT_EQ(pop(queue, 2, 0), 10U);
        queue.end("a", 5'000, 0);
        queue.end("b", 2'000, 0);
        EXPECT_EQ(pop(queue, 2, 0), 11U);
        queue.end("b", 2'000, 0);
        EXPECT_EQ(pop(queue, 2, 0), 12U);
}

TEST(JobQueue, WhatSomebodyHasHadBeforeOthersCameIsNoReasonToWait) {
        JobQueue queue;
        queue.push("long here", {0, 0});
        EXPECT_EQ(pop(queue, 1, 0), 0U);
        queue.end("long here", 500'000, 0);
        queue.push("long here", {1, 10});
        for (std::uint64_t i = 0; i < 10; i++) {
                queue.push("new", {100 + i, 20});
        }
        EXPECT_EQ(pop(queue, 1, 30), 1U);
        queue.end("long here", 1'000, 30);
        EXPECT_EQ(pop(queue, 1, 30), 100U);
        // And the other way round: it comes back, and waits a little.
        JobQueue other;
        other.push("long here", {0, 0});
        EXPECT_EQ(pop(other, 1, 0), 0U);
        other.end("long here", 500'000, 0);
        other.push("long here", {1, 1'000});
        for (std::uint64_t i = 0; i < 100; i++) {
                other.push("new", {100 + i, 2'000});
        }
        EXPECT_EQ(pop(other, 1, 3'000), 1U);
        other.end("long here", 0, 3'000);
        other.push("long here", {2, 4'000});
        std::size_t before = 0;
        for (auto job = pop(other, 1, 5'000); job && *job != 2; job = pop(other, 1, 5'000)) {
                other.end("new", 1'000, 5'000);
                before++;
        }
        EXPECT_LE(before, 25U);
}

TEST(JobQueue, AllWhoAreSlowTogetherLeaveOneHand) {
        JobQueue queue;
        for (const char* who : {"a", "b", "c"}) {
                queue.begin(who);
                queue.end(who, JobQueue::kSlowUsec, 0);
                queue.push(who, {static_cast<std::uint64_t>(*who), 0});
        }
        EXPECT_TRUE(pop(queue, 3, 0));
        EXPECT_TRUE(pop(queue, 3, 0));
        EXPECT_EQ(pop(queue, 3, 0), std::nullopt);
        queue.push("honest", {1, 0});
        EXPECT_EQ(pop(queue, 3, 0), 1U);
        EXPECT_TRUE(pop(queue, 3, JobQueue::kForgetUsec + 1)) << "not for ever";
}

TEST(JobQueue, WhatIsTooOldOrNotWantedAnyMoreGoes) {
        JobQueue queue;
        queue.push("a", {1, 100});
        queue.push("a", {2, 200});
        queue.push("b", {3, 300});
        queue.remove(3);
        const auto any = [](std::uint64_t) { return true; };
        EXPECT_EQ(queue.pop_older(1000, [](std::uint64_t job) { return job == 9; }), std::nullopt)
                << "none that must stay";
        EXPECT_EQ(queue.pop_older(150, any), 1U);
        EXPECT_EQ(queue.pop_older(150, any), std::nullopt);
        EXPECT_FALSE(queue.empty());
        EXPECT_EQ(queue.pop_older(1000, any), 2U);
        EXPECT_TRUE(queue.empty());
}

TEST(JobQueue, ManyUsersLeaveNothingBehind) {
        JobQueue queue;
        for (std::uint64_t i = 0; i < 100'000; i++) {
                const auto who = std::to_string(i);
                queue.push(who, {i, 0});
                ASSERT_EQ(pop(queue, 2, 0), i);
                queue.end(who, 10, 0);
        }
        EXPECT_TRUE(queue.empty());
}

Charge of(uid_t uid, const std::string& unit = {}, bool admitted = false) {
        return Charge{.uid = uid, .unit = unit, .admitted = admitted};
}

TEST(Ledger, TwoOfAUid) {
        Ledger ledger;
        ledger.add(1, of(1, "user@1.service"));
        EXPECT_FALSE(ledger.bars(of(1, "user@1.service")));
        ledger.add(2, of(1, "user@1.service"));
        EXPECT_TRUE(ledger.bars(of(1)));
        EXPECT_TRUE(ledger.bars(of(1, "", true))) << "admitted or not";
        EXPECT_EQ(ledger.why_barred(of(1, "user@1.service")), "uid 1");
        EXPECT_FALSE(ledger.bars(of(2, "user@1.service")));
        ledger.remove(1);
        EXPECT_FALSE(ledger.bars(of(1)));
}

TEST(Ledger, FourOfAUnitForWhoIsNotAdmittedAndEightForWhoIs) {
        Ledger ledger;
        for (uid_t uid = 100'000; uid < 100'000 + Ledger::kMaxPerUnit; uid++) {  // subordinate ones
                EXPECT_FALSE(ledger.bars(of(uid, "user@1.service")));
                ledger.add(uid, of(uid, "user@1.service"));
        }
        EXPECT_TRUE(ledger.bars(of(200'000, "user@1.service")));
        EXPECT_EQ(ledger.why_barred(of(200'000, "user@1.service")), "user@1.service");
        EXPECT_FALSE(ledger.bars(of(200'000, "user@1.service", true))) << "strangers do not count for the admitted";
        EXPECT_FALSE(ledger.bars(of(2, "nginx.service")));
        ledger.remove(100'000);
        EXPECT_FALSE(ledger.bars(of(200'000, "user@1.service")));
        for (uid_t uid = 300'000; uid < 300'000 + Ledger::kMaxPerAdmittedUnit; uid++) {
                EXPECT_FALSE(ledger.bars(of(uid, "game.service", true)));
                ledger.add(uid, of(uid, "game.service", true));
        }
        EXPECT_TRUE(ledger.bars(of(2, "game.service", true)));
        EXPECT_FALSE(ledger.bars(of(2, "nginx.service", true)));
}

TEST(Ledger, EightOfStrangersOfWhateverUidsAndUnits) {
        Ledger ledger;
        for (uid_t uid = 0; uid < Ledger::kMaxOfStrangers; uid++) {
                EXPECT_FALSE(ledger.bars(of(9'999, "nobodys.service")));
                ledger.add(uid, of(uid, std::to_string(uid) + ".service"));
        }
        EXPECT_TRUE(ledger.bars(of(9'999, "nobodys.service")));
        EXPECT_EQ(ledger.why_barred(of(9'999, "nobodys.service")), "") << "they share one process";
        EXPECT_FALSE(ledger.bars(of(9'999, "nobodys.service", true)));
}

TEST(Ledger, WhenTheyAreManyOnlyWhoWasServedBeforeGetsOne) {
        Ledger ledger;
        ledger.note_served(9'998);
        ledger.note_served(1'000);
        for (uid_t uid = 1'000; ledger.size() < Ledger::kMaxInAll; uid++) {
                EXPECT_FALSE(ledger.bars(of(9'999, "", true)));
                ledger.add(uid, of(uid, "", true));
        }
        EXPECT_TRUE(ledger.bars(of(9'999, "", true)));
        EXPECT_FALSE(ledger.bars(of(9'998, "", true)));
        EXPECT_FALSE(ledger.bars(of(9'998))) << "whatever it asks for";
        EXPECT_TRUE(ledger.bars(of(1'000, "", true))) << "one hand did not come back from it: it is not known any more";
        for (uid_t uid = 5'000; !ledger.is_full(); uid++) {
                ledger.add(uid, of(uid, "", true));
        }
        EXPECT_TRUE(ledger.bars(of(9'998, "", true)));
        EXPECT_EQ(ledger.size(), Ledger::kMaxInAll + Ledger::kReserve);
}

TEST(Ledger, OfThoseThatWereServedTheOldestAreForgottenButNotInAnAttack) {
        Ledger ledger;
        for (uid_t uid = 1; uid <= Ledger::kMaxKnown + 1; uid++) {
                ledger.note_served(uid);
        }
        for (uid_t uid = 10'000; uid < 10'000 + Ledger::kMaxOfStrangers; uid++) {
                ledger.add(uid, of(uid));
        }
        EXPECT_TRUE(ledger.bars(of(1))) << "the oldest";
        EXPECT_FALSE(ledger.bars(of(2)));
        ledger.note_served(20'000);
        EXPECT_TRUE(ledger.bars(of(20'000)));
        EXPECT_FALSE(ledger.bars(of(2)));
}

TEST(ProcessState, IsReadBehindTheNameWhateverThatIs) {
        const auto state = parse_process_state(
                "77 (a) R (b) D 1 77 77 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 5 1000 100 18446744073709551615\n");
        ASSERT_TRUE(state);
        EXPECT_FALSE(state->runnable);
        EXPECT_EQ(state->cpu_usec, 420'000);
        EXPECT_FALSE(parse_process_state("77 (a) R"));
        EXPECT_FALSE(parse_process_state(""));
        const auto own = state_of(getpid());
        ASSERT_TRUE(own);
        EXPECT_TRUE(own->runnable);
}

TEST(SlowSenders, AreThoseWhoKeptHandsAsleepTwentyMillisecondsInAll) {
        const Charge stranger{.uid = 7};
        SlowSenders slow;
        slow.note(stranger, 12'000, 0);
        EXPECT_FALSE(slow.has(stranger, 0));
        slow.note(stranger, 12'000, 100'000);
        EXPECT_TRUE(slow.has(stranger, 100'000));
        EXPECT_FALSE(slow.has({.uid = 8}, 100'000));
        EXPECT_TRUE(slow.has(stranger, 100'000 + SlowSenders::kRememberUsec - 1));
        EXPECT_FALSE(slow.has(stranger, 100'000 + SlowSenders::kRememberUsec));
}

TEST(SlowSenders, WhatIsLongAgoIsForgotten) {
        const Charge stranger{.uid = 7};
        SlowSenders slow;
        for (std::int64_t now = 0; now < 100'000'000; now += 2'000'000) {
                slow.note(stranger, 12'000, now);
                EXPECT_FALSE(slow.has(stranger, now));
        }
}

TEST(SlowSenders, ItIsTheUnitThatCountsWhereThereIsOne) {
        SlowSenders slow;
        slow.note({.uid = 7, .unit = "a.service"}, 30'000, 0);
        EXPECT_TRUE(slow.has({.uid = 8, .unit = "a.service"}, 0));
        EXPECT_FALSE(slow.has({.uid = 7, .unit = "b.service"}, 0));
        EXPECT_FALSE(slow.has({.uid = 7}, 0));
}

}  // namespace
}  // namespace sockbroker::hands
