// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Routes, as far as no kernel is needed: for what there may be one, the words between broker and sockbroker-routes,
// what a policy asks for, when a service is up and when that is announced, and what one broker leaves for the next.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "broker/daemon/announce_units.h"
#include "broker/daemon/damping.h"
#include "broker/daemon/route_memory.h"
#include "broker/daemon/route_plan.h"
#include "broker/policy/parse.h"
#include "broker/routes/keeper.h"
#include "broker/routes/wire.h"

namespace sockbroker {
namespace {

using namespace routes;

Prefix prefix(std::string_view text) {
        return parse_prefix(text).value();
}

std::vector<std::string> texts(const std::vector<Prefix>& prefixes) {
        std::vector<std::string> all;
        for (const auto& one : prefixes) {
                all.push_back(one.to_string());
        }
        return all;
}

TEST(RouteRules, AreTheSameAtEachEdge) {
        for (const auto* good : {"1.0.0.0/8", "192.0.2.1/32", "10.0.0.0/8", "126.0.0.0/8", "128.0.0.0/8", "2000::/16",
                                 "2001:db8::1/128", "fd00::/16", "240.0.0.0/8", "0:0:0:1::/64"}) {
                EXPECT_EQ(why_unroutable(prefix(good)), "") << good;
        }
        for (const auto* bad : {"0.0.0.0/0", "2.0.0.0/7", "127.0.0.1/32", "0.0.0.0/8", "224.0.0.0/8", "239.1.1.1/32",
                                "255.255.255.255/32", "::/0", "2000::/15", "::1/128", "::/16", "::/64", "fe80::/64",
                                "febf::1/128", "ff00::/16"}) {
                EXPECT_NE(why_unroutable(prefix(bad)), "") << bad;
        }
        EXPECT_NE(why_unroutable(Prefix{prefix("192.0.2.1/32").address, 24}), "") << "bits of a host";
        EXPECT_NE(why_unroutable(Prefix{prefix("192.0.2.1/32").address, 33}), "");
}

TEST(ConnectedNetworks, AreTakenByNoRoute) {
        const std::vector<Prefix> networks{prefix("10.1.0.0/16"), prefix("192.0.2.0/24"), prefix("2001:db8::/64")};
        for (const auto* covers : {"10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "192.0.0.0/8", "2001:db8::/32"}) {
                EXPECT_TRUE(is_connected(prefix(covers), Kind::kLocal, networks)) << covers;
        }
        for (const auto* free :
             {"10.1.2.0/24", "10.2.0.0/16", "11.0.0.0/8", "192.0.2.0/25", "2001:db8::/65", "9.0.0.0/8"}) {
                EXPECT_FALSE(is_connected(prefix(free), Kind::kLocal, networks)) << free;
        }
        EXPECT_TRUE(is_connected(prefix("192.0.2.0/24"), Kind::kAnnounce, networks));
        EXPECT_FALSE(is_connected(prefix("192.0.0.0/16"), Kind::kAnnounce, networks)) << "no packet goes by it";
}

TEST(RouteWire, WhatIsSaidIsHeard) {
        const std::vector<Prefix> some{prefix("192.0.2.0/24"), prefix("2001:db8::/32")};
        const auto order = decode_order(encode_prefixes(Kind::kAnnounce, some));
        ASSERT_TRUE(order);
        EXPECT_EQ(order->step, Step::kPrefixes);
        EXPECT_EQ(order->kind, Kind::kAnnounce);
        EXPECT_EQ(order->prefixes, some);
        const auto end = decode_order(encode_end(Kind::kLocal, 7));
        ASSERT_TRUE(end);
        EXPECT_EQ(end->number, 7U);
        const Report report{.kind = Kind::kAnnounce,
                            .number = 1,
                            .standing = 2,
                            .others = 3,
                            .refused = 4,
                            .added = 5,
                            .removed = 6,
                            .reason = Reason::kConnected,
                            .errnum = 7,
                            .example = some[1]};
        const auto heard = decode_report(encode(report));
        ASSERT_TRUE(heard);
        EXPECT_EQ(heard->example, report.example);
        EXPECT_EQ(encode(*heard), encode(report));
}

// Whatever bytes come: they are no order, or one that is well formed and bounded.
TEST(RouteWire, TakesNoOtherBytes) {
        std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same each time
        const std::vector<Prefix> some{prefix("192.0.2.0/24"), prefix("2001:db8::/32")};
        const std::vector<std::string> seeds{encode_begin(Kind::kLocal), encode_prefixes(Kind::kLocal, some),
                                             encode_end(Kind::kAnnounce, 1), encode(Report{})};
        std::size_t taken = 0;
        for (int i = 0; i < 200'000; i++) {
                std::string bytes = seeds[random() % seeds.size()];
                for (unsigned changes = random() % 4; changes > 0; changes--) {
                        bytes[random() % bytes.size()] = static_cast<char>(random());
                }
                if (random() % 8 == 0) {
                        bytes.resize(random() % (bytes.size() + 20));
                }
                if (const auto order = decode_order(bytes)) {
                        taken++;
                        for (const auto& one : order->prefixes) {
                                EXPECT_EQ(masked(one.address, one.length), one.address);
                        }
                        EXPECT_EQ(order->prefixes.empty(), order->step != Step::kPrefixes);
                }
                (void)decode_report(bytes);
        }
        EXPECT_GT(taken, 1000U) << "or nothing was tried";
}

RoutePlan plan_of(const std::string& text) {
        return route_plan_of(*parse_policy({{"x.conf", text}}, {}).policy);
}

TEST(RoutePlan, HasEachPrefixOnceAndThoseOfSeveralServicesWhileAllAreUp) {
        const auto plan = plan_of(
                "[Service a]\nUser=a\nLocalRoutes=yes\nAnnounce=any\nListenStream=192.0.2.0/24:80\n"
                "ListenDatagram=192.0.2.0/24:80\nListenStream=443\nListenStream=[2001:db8::]/32:80\n"
                "[Service b]\nUser=b\nAnnounce=all\nListenStream=192.0.2.0/24:81\nListenStream=198.51.100.0/24:81\n"
                "[Service c]\nUser=c\nLocalRoutes=yes\nListenStream=192.0.2.0/24:82\nListenStream=203.0.113.0/24:82\n");
        EXPECT_EQ(texts(plan.local), (std::vector<std::string>{"192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32"}));
        ASSERT_EQ(plan.announcing.size(), 2U);
        EXPECT_EQ(plan.announcing.at("a").prefixes, 2U);
        const auto a = plan.announcing.at("a").number;
        std::vector<bool> up(2);
        EXPECT_EQ(texts(plan.announced_while(up)), std::vector<std::string>{});
        up[a] = true;
        EXPECT_EQ(texts(plan.announced_while(up)), std::vector<std::string>{"2001:db8::/32"});
        up[1 - a] = true;
        EXPECT_EQ(texts(plan.announced_while(up)),
                  (std::vector<std::string>{"192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"}));
        EXPECT_TRUE(plan_of("[Service a]\nUser=a\nListenStream=192.0.2.0/24:80\n").empty());
}

TEST(RoutePlan, AnnouncesNoPrefixOfAFamilyWithoutClientsAndWaitsForNoSocketOfIt) {
        const auto plan =
                plan_of("[Service a]\nUser=a\nLocalRoutes=yes\nAnnounce=all\nListenStream=443\nSource=10.0.0.0/8\n"
                        "ListenStream=192.0.2.0/24:443\nListenStream=[2001:db8::]/32:443\n");
        EXPECT_EQ(texts(plan.announced_while({true})), std::vector<std::string>{"192.0.2.0/24"});
        EXPECT_EQ(texts(plan.local), (std::vector<std::string>{"192.0.2.0/24", "2001:db8::/32"}));
        const auto& used = plan.announcing.at("a").used;
        EXPECT_TRUE(used[0][0]);
        EXPECT_FALSE(used[0][1]);
}

TEST(AnnounceRule, WhatNobodyKnowsDecidesNothing) {
        using Parts = std::vector<std::optional<bool>>;
        const std::optional<bool> unknown;
        EXPECT_EQ(is_up(Announce::kAny, Parts{false, true}), true);
        EXPECT_EQ(is_up(Announce::kAny, Parts{unknown, true}), true);
        EXPECT_EQ(is_up(Announce::kAny, Parts{unknown, false}), unknown);
        EXPECT_EQ(is_up(Announce::kAny, Parts{false, false}), false);
        EXPECT_EQ(is_up(Announce::kAny, Parts{}), false);
        EXPECT_EQ(is_up(Announce::kAll, Parts{true, true}), true);
        EXPECT_EQ(is_up(Announce::kAll, Parts{true, false}), false);
        EXPECT_EQ(is_up(Announce::kAll, Parts{unknown, false}), false);
        EXPECT_EQ(is_up(Announce::kAll, Parts{unknown, true}), unknown);
        EXPECT_EQ(is_up(Announce::kAll, Parts{}), false);
}

TEST(AnnounceRule, AUnitCountsWhileItIsActive) {
        for (const auto* state : {"active", "reloading", "refreshing"}) {
                EXPECT_TRUE(is_active({.active = state})) << state;
        }
        for (const auto* state : {"activating", "deactivating", "inactive", "failed", "maintenance", ""}) {
                EXPECT_FALSE(is_active({.active = state})) << state;
        }
}

TEST(Damping, AnnouncesWhoIsUpForLongEnoughAndWithdrawsWhoIsDownForLongEnough) {
        const Damping::Spans spans{.up_usec = 10, .down_usec = 5};
        Damping one;
        EXPECT_FALSE(one.settle(100, spans)) << "nothing is known";
        EXPECT_EQ(one.next_usec(spans), 0);
        one.set(true, false, 100);
        EXPECT_FALSE(one.settle(109, spans));
        EXPECT_EQ(one.next_usec(spans), 110);
        one.set(true, false, 109);
        EXPECT_TRUE(one.settle(110, spans)) << "since it came, not since it was looked at";
        EXPECT_EQ(one.next_usec(spans), 0);
        one.set(false, false, 120);
        EXPECT_TRUE(one.settle(124, spans));
        one.set(true, false, 124);
        EXPECT_TRUE(one.settle(200, spans)) << "it was down too shortly";
        one.set(false, false, 200);
        EXPECT_FALSE(one.settle(205, spans));
}

TEST(Damping, WhoFlapsStaysAsItWas) {
        const Damping::Spans spans{.up_usec = 10, .down_usec = 10};
        Damping one;
        for (std::int64_t now = 0; now < 1000; now += 9) {
                one.set(now % 2 == 0, false, now);
                EXPECT_FALSE(one.settle(now, spans));
        }
}

TEST(Damping, ADrainIsNotWaitedFor) {
        const Damping::Spans spans{.up_usec = 10, .down_usec = 1000};
        Damping one;
        one.set(true, false, 0);
        EXPECT_TRUE(one.settle(10, spans));
        one.set(true, true, 11);
        EXPECT_FALSE(one.settle(11, spans));
        EXPECT_EQ(one.next_usec(spans), 0);
        one.set(true, false, 50);
        EXPECT_TRUE(one.settle(50, spans)) << "it was up all the while";
}

class RouteMemoryFile : public testing::Test {
protected:
        RouteMemoryFile() { std::filesystem::create_directories(folder_); }
        ~RouteMemoryFile() override { std::filesystem::remove_all(folder_); }

        std::string folder_ = testing::TempDir() + "route-memory-" + std::to_string(getpid());
        std::string path_ = folder_ + "/routes";
};

TEST_F(RouteMemoryFile, TheNextBrokerKnowsWhatTheOneBeforeWasTold) {
        RouteMemory memory(path_);
        EXPECT_FALSE(memory.may_stand());
        EXPECT_TRUE(memory.drain("web", 12));
        EXPECT_TRUE(memory.drain("dns", 13));
        EXPECT_TRUE(memory.drain("web", 14));
        EXPECT_TRUE(memory.set_may_stand(true));
        EXPECT_TRUE(memory.undrain("dns"));
        const RouteMemory next(path_);
        EXPECT_TRUE(next.may_stand());
        EXPECT_EQ(next.drained(), (RouteMemory::Drained{{"web", 12}}));
}

TEST_F(RouteMemoryFile, WhatItDoesNotKnowSaysNothing) {
        std::ofstream(path_)
                << "drained\ndrained \ndrained web\ndrained a/b 1\ndrained web x\nnonsense\n\ndrained dns 5";
        const RouteMemory memory(path_);
        EXPECT_FALSE(memory.may_stand());
        EXPECT_EQ(memory.drained(), (RouteMemory::Drained{{"dns", 5}}));
}

TEST_F(RouteMemoryFile, WhereItCannotBeWrittenThatIsSaidAndHoldsForNow) {
        RouteMemory memory(folder_ + "/nowhere/routes");
        EXPECT_FALSE(memory.drain("web", 1));
        EXPECT_TRUE(memory.drained().contains("web"));
}

TEST_F(RouteMemoryFile, WhatCouldNotBeWrittenIsWrittenWithTheNextWord) {
        std::filesystem::create_directories(path_ + ".now.new/in the way");
        RouteMemory memory(path_);
        EXPECT_FALSE(memory.set_may_stand(true));
        std::filesystem::remove_all(path_ + ".now.new");
        EXPECT_FALSE(RouteMemory(path_).may_stand());
        EXPECT_TRUE(memory.set_may_stand(true)) << "as it was said before";
        EXPECT_TRUE(RouteMemory(path_).may_stand());
}

TEST_F(RouteMemoryFile, OneThatCannotBeReadIsNotTakenForOneThatSaysNothing) {
        EXPECT_EQ(RouteMemory(path_).unread(), "") << "there is none";
        std::filesystem::create_directories(path_);
        RouteMemory memory(path_);
        EXPECT_NE(memory.unread(), "");
        EXPECT_TRUE(memory.may_stand()) << "nobody knows that none does";
        std::filesystem::create_directories(path_ + ".now.new/in the way");
        EXPECT_FALSE(memory.drain("web", 1));
        EXPECT_NE(memory.unread(), "");
        std::filesystem::remove_all(path_ + ".now.new");
        EXPECT_TRUE(memory.drain("dns", 2));
        EXPECT_EQ(memory.unread(), "");
        EXPECT_EQ(RouteMemory(path_).drained(), (RouteMemory::Drained{{"dns", 2}, {"web", 1}}));
}

TEST_F(RouteMemoryFile, WhatALossOfPowerHasCutShortLeavesWhatTheDiskHadBefore) {
        for (const char* const cut : {"", "routes\n", "drained dns 2\ndrained we"}) {
                std::ofstream(path_) << "drained web 1\nend\n";
                std::ofstream(path_ + ".now") << cut;
                EXPECT_EQ(RouteMemory(path_).drained(), (RouteMemory::Drained{{"web", 1}})) << cut;
                std::ofstream(path_ + ".now") << "drained dns 2\nend\n";
                EXPECT_EQ(RouteMemory(path_).drained(), (RouteMemory::Drained{{"dns", 2}})) << "the newer one is whole";
        }
}

TEST_F(RouteMemoryFile, WhatIsNotOnTheDiskYetIsToBeSavedByTheNextBrokerToo) {
        std::string saved;
        const auto save = [&saved](std::string text) { saved = std::move(text); };
        {
                RouteMemory memory(path_);
                memory.when_changed(save);
                EXPECT_EQ(saved, "");
                EXPECT_TRUE(memory.drain("web", 1));
                EXPECT_EQ(saved, "drained web 1\nend\n");
        }
        saved.clear();
        RouteMemory next(path_);
        next.when_changed(save);
        EXPECT_EQ(saved, "drained web 1\nend\n");
        std::ofstream(path_) << saved;
        next.saved();
        EXPECT_FALSE(std::filesystem::exists(path_ + ".now"));
        saved.clear();
        RouteMemory(path_).when_changed(save);
        EXPECT_EQ(saved, "");
}

TEST(Keeper, AListThatIsLongerThanAnyMayBeIsRefused) {
        auto kernel = KernelRoutes::open({});
        ASSERT_TRUE(kernel) << kernel.error().text();
        Keeper keeper(*kernel, 3);
        EXPECT_TRUE(keeper.take({.step = Step::kBegin}).good);
        EXPECT_TRUE(keeper.take({.step = Step::kPrefixes, .prefixes = {prefix("10.0.0.1"), prefix("10.0.0.2")}}).good);
        EXPECT_TRUE(keeper.take({.step = Step::kPrefixes, .prefixes = {prefix("10.0.0.3")}}).good);
        EXPECT_FALSE(keeper.take({.step = Step::kPrefixes, .prefixes = {prefix("10.0.0.4")}}).good);
}

}  // namespace
}  // namespace sockbroker
