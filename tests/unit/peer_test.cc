// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Real senders: children with other uids, in units that are real cgroups, and that die. peer_pid_test.cc: whose pid is
// taken by another.
#include "broker/peer/peer.h"

#include <sys/socket.h>

#include <fstream>

#include <gtest/gtest.h>

#include "broker/peer/on_behalf.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/peer_fixture.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

INSTANTIATE_TEST_SUITE_P(Kernels, PeerTest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "WithPidfd" : "WithoutPidfd"; });

TEST_P(PeerTest, ALivingSenderHasItsUnitAndIds) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        const auto peer = identify(next());
        ASSERT_TRUE(peer) << peer.error().message;
        EXPECT_EQ(peer->pid, child.pid());
        EXPECT_EQ(peer->uid, kServiceUid);
        EXPECT_EQ(peer->unit, unit.name());
        EXPECT_EQ(peer->to_string(), "pid " + std::to_string(child.pid()) + ", uid 61001, unit " + unit.name());
        finish(child);
}

TEST_P(PeerTest, ASenderOutsideUnitsHasNone) {
        test::Child child([&] { return send_and_wait(nullptr); });
        const auto peer = identify(next());
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->unit, "");
        EXPECT_EQ(peer->to_string(), "pid " + std::to_string(child.pid()) + ", uid 61001, no unit");
        finish(child);
}

TEST_P(PeerTest, OneMaySpeakForAnotherOfItsOwnUnitAndUserAndRootForAnyUserOfItsUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        const auto program = identify(next());
        ASSERT_TRUE(program);
        const auto spoken_for = [&](uid_t uid, gid_t gid, const std::string& of) {
                return on_behalf_of({.pid = getpid(), .uid = uid, .gid = gid, .unit = of}, child.pid());
        };
        const auto same = spoken_for(program->uid, program->gid, unit.name());
        ASSERT_TRUE(same) << same.error().message;
        EXPECT_EQ(same->to_string(), program->to_string());
        EXPECT_TRUE(spoken_for(0, 0, unit.name()));
        for (const auto& refused : {spoken_for(program->uid, program->gid, "other.service"),
                                    spoken_for(program->uid, program->gid, ""), spoken_for(0, 0, "other.service"),
                                    spoken_for(0, 0, ""), spoken_for(program->uid + 1, program->gid, unit.name()),
                                    spoken_for(program->uid, program->gid + 1, unit.name())}) {
                ASSERT_FALSE(refused);
                EXPECT_EQ(refused.error().code, ResultCode::kNotPermitted);
        }
        finish(child);
        EXPECT_FALSE(spoken_for(program->uid, program->gid, unit.name()));  // it is gone
}

// What a service with Delegate=yes or a user's manager can make below its own cgroup.
TEST_P(PeerTest, AUnitForgedBelowADelegatedOneCountsAsTheOutermost) {
        const Unit outer(unit_name());
        const Unit forged("resolver.service", &outer);
        test::Child child([&] { return send_and_wait(&forged); });
        EXPECT_EQ(identify(next())->unit, outer.name());
        finish(child);
}

TEST_P(PeerTest, AUnitOfAUserManagerCountsAsTheManagers) {
        const Unit manager("user@" + std::to_string(getpid()) + ".service");  // other runs of this test have theirs
        const Unit forged("resolver.service", &manager, "/app.slice");
        test::Child child([&] { return send_and_wait(&forged); });
        EXPECT_EQ(identify(next())->unit, manager.name());
        finish(child);
}

TEST_P(PeerTest, ASenderThatIsGoneHasNoUnitButKeepsItsUid) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        auto received_early = next();
        const auto pid = child.pid();
        finish(child);
        const auto peer = identify(received_early);
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->pid, pid);
        EXPECT_EQ(peer->uid, kServiceUid);
        EXPECT_EQ(peer->unit, "");
}

TEST_P(PeerTest, ASenderThatWasGoneBeforeReceivingHasNoUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return unit.enter() && send_record(peer_.get(), "READY=1") ? 0 : 1; });
        ASSERT_EQ(child.wait(), 0);
        const auto message = next();
        if (GetParam()) {
                EXPECT_TRUE(message.pidfd.valid() || message.sender_gone);
        }
        const auto peer = identify(message);
        ASSERT_TRUE(peer);
        EXPECT_EQ(peer->unit, "");
}

TEST_P(PeerTest, WithoutAPidfdTheUidMustStillFit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit, kServiceUid, kServiceUid + 1); });
        const auto first = next();
        const auto changed = next();
        EXPECT_EQ(first.credentials->uid, kServiceUid);
        EXPECT_EQ(identify(first)->unit, GetParam() ? unit.name() : "");
        EXPECT_EQ(identify(changed)->unit, unit.name());
        finish(child);
}

TEST_P(PeerTest, WithoutAPidfdAMessageOfUnknownOrFutureTimeHasNoUnit) {
        const Unit unit(unit_name());
        test::Child child([&] { return send_and_wait(&unit); });
        auto message = next();
        EXPECT_EQ(identify(message)->unit, unit.name());
        const auto sent = message.sent_usec;
        for (const std::int64_t time : {std::int64_t{0}, sent + 3'600'000'000, sent - 3'600'000'000}) {
                message.sent_usec = time;
                EXPECT_EQ(identify(message)->unit, GetParam() ? unit.name() : "") << time - sent;
        }
        finish(child);
}

// Linux gives such a message pid 0 and the overflow uid.
TEST(Peer, AMessageQueuedBeforeCredentialsWereAskedForIsRefused) {
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(send_record(peer.get(), "READY=1"));
        ASSERT_TRUE(prepare_receiver(broker.get()));
        const auto message = receive(broker.get());
        ASSERT_TRUE(message && message->credentials);
        EXPECT_EQ(message->credentials->pid, 0);
        const auto identified = identify(*message);
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(identified.error().message,
                  "the sender has no pid here: it runs outside the broker's pid namespace, or sent before the socket "
                  "asked "
                  "for credentials (PassCredentials=yes in its unit)");
}

TEST(Peer, AMessageWithoutCredentialsIsRefused) {
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(send_record(peer.get(), "READY=1"));
        const auto message = receive(broker.get());  // never prepared
        ASSERT_TRUE(message);
        ASSERT_FALSE(message->credentials);
        const auto identified = identify(*message);
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(identified.error().message,
                  "the message came without credentials of its sender, so nobody knows who asks; the socket it was "
                  "sent to "
                  "needs SO_PASSCRED (PassCredentials=yes in its unit)");
}

TEST(Peer, TheOverflowUidIsRefused) {
        if (geteuid() != 0) {
                GTEST_SKIP() << "needs root to change uids";
        }
        int fds[2];
        test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        const OwnedFd broker(fds[0]);
        const OwnedFd peer(fds[1]);
        ASSERT_TRUE(prepare_receiver(broker.get()));
        uid_t overflow = 0;
        std::ifstream("/proc/sys/kernel/overflowuid") >> overflow;
        test::Child child([&] {
                return setresuid(overflow, overflow, overflow) == 0 && send_record(peer.get(), "READY=1") ? 0 : 1;
        });
        ASSERT_EQ(child.wait(), 0);
        const auto identified = identify(*receive(broker.get()));
        ASSERT_FALSE(identified);
        EXPECT_EQ(identified.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(
                identified.error().message,
                "uid " + std::to_string(overflow) +
                        " stands for every user unknown in the broker's user namespace and identifies nobody; run the "
                        "service under a uid of its own");
}

}  // namespace
}  // namespace sockbroker
