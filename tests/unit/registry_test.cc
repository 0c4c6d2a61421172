// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The pure part of the registry: policy to rules, registrations to targets.
#include "broker/registry/registry.h"

#include <gtest/gtest.h>

namespace sockbroker {
namespace {

Registration registration(Slot slot, Protocol protocol, bool ipv4, bool ipv6) {
        return {.slot = slot, .cookie = slot, .protocol = protocol, .serves = {.ipv4 = ipv4, .ipv6 = ipv6}};
}

TEST(Targets, AreTheNewestFirstAndThenTheReserve) {
        const std::vector<Registration> newest_first = {registration(7, Protocol::kTcp, true, false),
                                                        registration(5, Protocol::kUdp, true, false),
                                                        registration(3, Protocol::kTcp, true, false)};
        const auto targets = targets_of(newest_first, {});
        EXPECT_EQ(targets.slots[0][0], (std::vector<Slot>{7, 3}));
        EXPECT_EQ(targets.slots[1][0], (std::vector<Slot>{5}));
        EXPECT_EQ(targets.slots[0][1], (std::vector<Slot>{}));
}

TEST(Targets, NameNoMoreThanTheReserveHolds) {
        std::vector<Registration> many;
        for (Slot slot = 20; slot > 0; slot--) {
                many.push_back(registration(slot, Protocol::kTcp, true, true));
        }
        EXPECT_EQ(targets_of(many, {}).slots[0][1], (std::vector<Slot>{20, 19, 18, 17}));
        EXPECT_EQ(targets_of(many, {.share = true}).slots[0][1].size(), 20U) << "all of those that share";
}

TEST(Targets, OfADualStackSocketAreInBothFamiliesThatItServes) {
        const std::vector<Registration> one = {registration(9, Protocol::kTcp, true, true)};
        EXPECT_EQ(targets_of(one, {}).slots[0][0], (std::vector<Slot>{9}));
        EXPECT_EQ(targets_of(one, {}).slots[0][1], (std::vector<Slot>{9}));
}

Registration held(Registration one) {
        one.gone_usec = 1;
        return one;
}

TEST(Held, IsTriedAfterThoseWhoseServiceLives) {
        auto old = registration(1, Protocol::kTcp, true, true);
        old.since_usec = 10;
        auto gone = held(registration(2, Protocol::kTcp, true, true));
        gone.since_usec = 20;
        EXPECT_TRUE(is_before(old, gone));
        EXPECT_FALSE(is_before(gone, old));
        EXPECT_EQ(targets_of(std::vector{old, gone}, {}).slots[0][0], (std::vector<Slot>{1, 2}));
        EXPECT_EQ(targets_of(std::vector{old, gone}, {.share = true}).slots[0][0], (std::vector<Slot>{1}));
        EXPECT_EQ(targets_of(std::vector{gone}, {.share = true}).slots[0][0], (std::vector<Slot>{2}));
}

TEST(Held, IsSucceededByWhatServesAllThatItServed) {
        const auto old = held(registration(1, Protocol::kTcp, true, true));
        const auto offer = [](Protocol protocol, bool ipv4, bool ipv6) {
                SocketFacts facts;
                facts.protocol = protocol;
                return Offer{.facts = facts, .serves = {.ipv4 = ipv4, .ipv6 = ipv6}};
        };
        const std::vector both = {offer(Protocol::kTcp, true, false), offer(Protocol::kTcp, false, true)};
        const std::vector half = {offer(Protocol::kTcp, true, false)};
        const std::vector other = {offer(Protocol::kUdp, true, true)};
        EXPECT_TRUE(is_succeeded(old, {}, both, {}));
        EXPECT_FALSE(is_succeeded(old, {}, half, {})) << "IPv6 would be nobody's";
        EXPECT_FALSE(is_succeeded(old, {}, other, {}));
        EXPECT_FALSE(is_succeeded(registration(1, Protocol::kTcp, true, true), {}, both, {})) << "its service lives";
}

TEST(Held, IsSucceededByItsOwnNextInstanceAloneWhereTheyShare) {
        auto old = held(registration(1, Protocol::kTcp, true, false));
        old.registrant = {.uid = 7, .unit = "a@1.service"};
        SocketFacts facts;
        const std::vector offers = {Offer{.facts = facts, .serves = {.ipv4 = true}}};
        EXPECT_TRUE(is_succeeded(old, {.uid = 7, .unit = "a@1.service"}, offers, {.share = true}));
        EXPECT_FALSE(is_succeeded(old, {.uid = 7, .unit = "a@2.service"}, offers, {.share = true}));
        EXPECT_FALSE(is_succeeded(old, {.uid = 7}, offers, {.share = true})) << "not of its unit";
        EXPECT_TRUE(is_succeeded(old, {.uid = 8, .unit = "a@2.service"}, offers, {})) << "displaces it anyway";
}

TEST(Live, IsASocketThatIsTheFirstChoiceSomewhere) {
        const std::vector<Registration> newest_first = {registration(3, Protocol::kTcp, true, false),
                                                        registration(2, Protocol::kTcp, true, true),
                                                        registration(1, Protocol::kTcp, true, false)};
        EXPECT_TRUE(is_live(newest_first, {}, newest_first[0]));
        EXPECT_TRUE(is_live(newest_first, {}, newest_first[1])) << "it still serves IPv6";
        EXPECT_FALSE(is_live(newest_first, {}, newest_first[2]));
        EXPECT_TRUE(is_live(newest_first, {.share = true}, newest_first[2])) << "all that share are";
}

TEST(Live, IsSaidOfManyAtOnceAsOfEach) {
        for (unsigned bits = 0; bits < 1U << 9; bits++) {
                std::vector<Registration> newest_first;
                for (unsigned i = 0; i < 3; i++) {
                        const unsigned one = bits >> (3 * i) & 7;
                        newest_first.push_back(registration(3 - i, (one & 1) != 0 ? Protocol::kTcp : Protocol::kUdp,
                                                            (one & 2) != 0, (one & 4) != 0));
                }
                for (const bool share : {false, true}) {
                        const Serving serving(newest_first, {.share = share});
                        for (const auto& one : newest_first) {
                                EXPECT_EQ(serving.is_live(one), is_live(newest_first, {.share = share}, one)) << bits;
                        }
                }
        }
}

TEST(Rules, CarryWhatTheBindingsSayAndTheNumberOfTheirService) {
        Policy policy;
        policy.services = {{.name = "a"}, {.name = "b", .when_absent = WhenAbsent::kPass}};
        policy.services[0].bindings = {
                {.prefix = *parse_prefix("1.0.0.0/24"), .ports = {53, 53}, .protocol = Protocol::kUdp}};
        policy.services[1].bindings = {
                {.prefix = *parse_prefix("::/0"), .ports = {80, 90}, .protocol = Protocol::kTcp}};
        const auto rules = rules_of(policy, [](const std::string& name) { return name == "a" ? 11U : 12U; }, {}, {});
        ASSERT_EQ(rules.size(), 2U);
        EXPECT_EQ(rules[0].service, 11U);
        EXPECT_EQ(rules[0].protocol, Protocol::kUdp);
        EXPECT_EQ(rules[0].absent, Absent::kRefuse);
        EXPECT_EQ(rules[1].service, 12U);
        EXPECT_EQ(rules[1].prefix.to_string(), "::/0");
        EXPECT_EQ(rules[1].ports, (PortRange{80, 90}));
        EXPECT_EQ(rules[1].absent, Absent::kPass);
        EXPECT_FALSE(rules[1].source);
}

}  // namespace
}  // namespace sockbroker
