// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/policy_in_force.h"

#include <gtest/gtest.h>

#include "broker/daemon/revocation.h"
#include "broker/policy/parse.h"

namespace sockbroker {
namespace {

Policy parse(const std::string& text) {
        auto parsed = parse_policy({{"x.conf", text}}, {});
        EXPECT_TRUE(parsed.policy) << parsed.diagnostics.at(0).to_string();
        return std::move(*parsed.policy);
}

TEST(PolicyInForce, IsEmptyBeforeOneIsTaken) {
        const PolicyInForce policy;
        EXPECT_TRUE(policy->services.empty());
        EXPECT_EQ(policy.since_usec(), 0);
}

TEST(PolicyInForce, AReaderLosesItsPolicyWhenThatIsReplacedForTheSecondTime) {
        PolicyInForce policy;
        const auto replace = [&](const std::string& text) {
                policy.prepare();
                policy.replace(std::make_shared<const Policy>(parse(text)), {});
        };
        replace("[Service first]\nUser=1\n");
        const auto snapshot = policy.snapshot();
        const std::weak_ptr<const Policy> first = policy.shared();
        replace("[Service second]\nUser=1\n");
        ASSERT_NE(snapshot->policy, nullptr);
        EXPECT_EQ(snapshot->policy->services.front().name, "first");
        replace("[Service third]\nUser=1\n");
        EXPECT_EQ(snapshot->policy, nullptr);
        EXPECT_TRUE(first.expired()) << "no more than two policies are kept, however slow a reader is";
        EXPECT_EQ(policy.snapshot()->policy->services.front().name, "third");
}

TEST(PolicyInForce, WhatReadersShareOfOnePolicyGoesTogether) {
        PolicyInForce policy;
        const auto one = policy.snapshot();
        EXPECT_EQ(one, policy.snapshot());
        policy.set_interfaces({{"lo", 1}});
        EXPECT_EQ(one, policy.snapshot()) << "other interfaces are no other policy";
        EXPECT_EQ(policy.interfaces().at("lo"), 1U);
}

TEST(Revocation, SaysWhyARegistrationGoes) {
        const Accounts nobody{.user = [](const std::string&) { return AccountAnswer::none(); },
                              .group = [](const std::string&) { return AccountAnswer::none(); }};
        Registration registration{.protocol = Protocol::kTcp, .serves = {.ipv4 = true, .ipv6 = false}};
        registration.registrant = {.pid = 1, .uid = 70, .gid = 71};
        const auto why = [&](const std::string& text) {
                const auto policy = parse(text);
                return std::string(Revocation(policy, nobody).why("web", registration));
        };
        EXPECT_EQ(why("[Service web]\nUser=70\nListenStream=192.0.2.1:80\n"), "");
        EXPECT_EQ(why("[Service other]\nUser=70\nListenStream=192.0.2.1:80\n"), "policy has no such service any more");
        EXPECT_EQ(why("[Service web]\nUser=71\nListenStream=192.0.2.1:80\n"), "policy does not admit it any more");
        const std::string unused =
                "the service has no binding of its protocol and family that a client could match any more";
        EXPECT_EQ(why("[Service web]\nUser=70\nListenDatagram=192.0.2.1:80\n"), unused);
        EXPECT_EQ(why("[Service web]\nUser=70\nListenStream=[2001:db8::1]:80\n"), unused);
        EXPECT_EQ(why("[Service web]\nUser=70\nListenStream=80\nSource=2001:db8::/32\n"), unused);
        EXPECT_EQ(why("[Service web]\nUser=70\nListenStream=80\nSource=2001:db8::/32 10.0.0.0/8\n"), "");
}

}  // namespace
}  // namespace sockbroker
