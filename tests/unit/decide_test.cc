// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who is admitted to which service; each refusal with its message and the place in the policy that decided.
#include "broker/policy/decide.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "broker/policy/still_admitted.h"
#include "tests/unit/support/policy.h"

namespace sockbroker {
namespace {

const Accounts kAccounts{
        .user = [](const std::string& name) -> std::optional<uid_t> {
                return name == "web"      ? std::optional<uid_t>(33)
                       : name == "nobody" ? std::optional<uid_t>(65534)
                                          : std::nullopt;
        },
        .group = [](const std::string& name) -> std::optional<gid_t> {
                return name == "www"       ? std::optional<gid_t>(44)
                       : name == "nogroup" ? std::optional<gid_t>(65534)
                                           : std::nullopt;
        },
};

const char* const kMatchers = R"([Service unit]
Unit=a.service b.service
Unit=c@.service
[Service user]
User=61001 web
[Service group]
Group=www
Group=61003
[Service all]
Unit=a.service
User=web
Group=www
[Service none]
ListenStream=80
[Service root]
User=0
[Service overflow]
User=nobody
[Service later]
User=not-yet
)";

struct Admitted {
        const char* service;
        Peer peer;
        const char* rule;  // of the matcher that admits; empty: not admitted
};

TEST(Admit, AllThatAreGivenMustMatchAndOneValueOfEachSuffices) {
        const auto policy = test::policy_of(kMatchers);
        const Admitted cases[] = {
                {"unit", {1, 5, 5, "a.service"}, "x.conf:2"},
                {"unit", {1, 5, 5, "b.service"}, "x.conf:2"},
                {"unit", {1, 5, 5, "c@x.service"}, "x.conf:3"},
                {"unit", {1, 5, 5, "c.service"}, ""},
                {"unit", {1, 5, 5, ""}, ""},
                {"unit", {1, 0, 0, ""}, ""},  // root gets no bypass
                {"user", {1, 61001, 5, ""}, "x.conf:5"},
                {"user", {1, 33, 5, "any.service"}, "x.conf:5"},
                {"user", {1, 0, 0, ""}, ""},
                {"user", {1, 5, 61001, ""}, ""},  // a group of that number is no user
                {"group", {1, 5, 44, ""}, "x.conf:7"},
                {"group", {1, 5, 61003, ""}, "x.conf:8"},
                {"group", {1, 44, 5, ""}, ""},
                {"all", {1, 33, 44, "a.service"}, "x.conf:10"},
                {"all", {1, 33, 44, "b.service"}, ""},
                {"all", {1, 34, 44, "a.service"}, ""},
                {"all", {1, 33, 45, "a.service"}, ""},
                {"none", {1, 0, 0, "a.service"}, ""},
                {"root", {1, 0, 0, ""}, "x.conf:16"},
                {"root", {1, 1, 0, ""}, ""},
                {"overflow", {1, 65534, 65534, ""}, ""},
                {"later", {1, 0, 0, ""}, ""},
        };
        for (const auto& one : cases) {
                const auto result = admit(policy, one.peer, one.service, kAccounts);
                SCOPED_TRACE(std::string(one.service) + " for uid " + std::to_string(one.peer.uid) + " unit " +
                             one.peer.unit);
                if (*one.rule == '\0') {
                        ASSERT_FALSE(result);
                        EXPECT_EQ(result.error().code, ResultCode::kNotPermitted);
                        EXPECT_EQ(result.error().rule, policy.location(policy.find(one.service)->where));
                } else {
                        ASSERT_TRUE(result) << result.error().message;
                        EXPECT_EQ(result->service->name, one.service);
                        EXPECT_EQ(result->rule, one.rule);
                }
        }
}

TEST(Admit, ARefusalNamesTheMatchersThatFailed) {
        const auto policy = test::policy_of(kMatchers);
        const auto message = [&](const char* service, const Peer& peer) {
                return admit(policy, peer, service, kAccounts).error().message;
        };
        EXPECT_EQ(message("unit", {1, 5, 5, "z.service"}),
                  "not admitted to service unit: Unit=a.service b.service c@.service at x.conf:2 does not match, the "
                  "sender "
                  "runs in z.service");
        EXPECT_EQ(
                message("all", {1, 33, 45, ""}),
                "not admitted to service all: Unit=a.service at x.conf:10 does not match, the sender runs in no system "
                "unit; Group=www at x.conf:12 does not match, the sender has gid 45");
        EXPECT_EQ(message("user", {1, 7, 7, ""}),
                  "not admitted to service user: User=61001 web at x.conf:5 does not match, the sender has uid 7");
        EXPECT_EQ(message("none", {1, 7, 7, ""}),
                  "not admitted to service none: it has no Unit=, User= or Group= and admits nobody");
}

TEST(Admit, AServiceThatNoPolicyNamesIsUnknown) {
        const auto result = admit(test::policy_of(kMatchers), {1, 0, 0, "a.service"}, "auth", kAccounts);
        EXPECT_EQ(result.error().code, ResultCode::kUnknownService);
        EXPECT_EQ(result.error().message,
                  "no policy has a section [Service auth], check FDNAME= or add one and reload");
        EXPECT_EQ(result.error().rule, "");
}

TEST(Admit, WithoutANameTheNearestServiceSaysWhyItDoesNotAdmit) {
        const auto policy = test::policy_of(kMatchers);
        const auto message = [&](const Peer& peer) { return admit(policy, peer, "", kAccounts).error().message; };
        EXPECT_EQ(message({1, 7, 7, "unit.service"}),
                  "no service admits a sender with uid 7, gid 7, in unit unit.service; the nearest is unit: "
                  "Unit=a.service b.service c@.service at x.conf:2 does not match, the sender runs in unit.service");
        const auto one = test::policy_of("[Service web]\nUser=61001\nListenStream=80\n");
        EXPECT_EQ(admit(one, {1, 7, 7, ""}, "", kAccounts).error().message,
                  "no service admits a sender with uid 7, gid 7, in no system unit; the nearest is web: User=61001 at "
                  "x.conf:2 does not match, the sender has uid 7");
        EXPECT_TRUE(admits(*one.find("web"), {1, 61001, 7, ""}, kAccounts));
        EXPECT_FALSE(admits(*one.find("web"), {1, 7, 7, ""}, kAccounts));
}

TEST(Admit, WithoutANameTheOneServiceThatFitsIsFound) {
        const auto policy = test::policy_of(kMatchers);
        const auto found = admit(policy, {1, 5, 44, ""}, "", kAccounts);
        ASSERT_TRUE(found) << found.error().message;
        EXPECT_EQ(found->service->name, "group");
        EXPECT_EQ(found->rule, "x.conf:7");

        const auto several = admit(policy, {1, 33, 44, "a.service"}, "", kAccounts);
        ASSERT_FALSE(several);
        EXPECT_EQ(several.error().code, ResultCode::kAmbiguous);
        EXPECT_EQ(several.error().message,
                  "several services admit the sender (all group unit user), name one with FDNAME=");

        const auto nobody = admit(policy, {1, 5, 6, ""}, "", kAccounts);
        ASSERT_FALSE(nobody);
        EXPECT_EQ(nobody.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(nobody.error().message,
                  "no service admits a sender with uid 5, gid 6, in no system unit, name one with FDNAME= to be told "
                  "what "
                  "does not match");
}

// "gone" has no answer now.
const Accounts kAway{
        .user = [](const std::string& name) { return name == "gone" ? AccountAnswer::none() : kAccounts.user(name); },
        .group = [](const std::string& name) { return name == "gone" ? AccountAnswer::none() : kAccounts.group(name); },
};

TEST(Admit, ANameWithoutAnAnswerAdmitsNobodyAndTheRefusalSaysSo) {
        const auto policy = test::policy_of("[Service a]\nUser=gone web\nListenStream=80\n");
        EXPECT_TRUE(admit(policy, {1, 33, 5, ""}, "a", kAway));
        const auto refused = admit(policy, {1, 34, 5, ""}, "a", kAway);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ResultCode::kNotPermitted);
        EXPECT_EQ(refused.error().message,
                  "not admitted to service a: User=gone web at x.conf:2 does not match, the sender has uid 34 (the "
                  "host's "
                  "directory does not answer for gone just now, try again)");
}

TEST(Admit, TellsTheNamesThatAdmitted) {
        const auto policy = test::policy_of("[Service a]\nUser=5 web\nGroup=www\nListenStream=80\n");
        const auto by_name = admit(policy, {1, 33, 44, ""}, "a", kAccounts);
        ASSERT_TRUE(by_name);
        EXPECT_EQ(by_name->user, account_hash("web"));
        EXPECT_EQ(by_name->group, account_hash("www"));
        const auto by_number = admit(policy, {1, 5, 44, ""}, "a", kAccounts);
        ASSERT_TRUE(by_number);
        EXPECT_EQ(by_number->user, 0U);
}

TEST(NamesThatMatter, AreThoseThatNoUnitAndNoNumberSettles) {
        const auto policy = test::policy_of(
                "[Service a]\nUnit=a.service\nUser=web 5\nListenStream=80\n"
                "[Service b]\nUser=7 more\nGroup=www\nListenStream=81\n");
        using Names = std::vector<AccountName>;
        EXPECT_EQ(names_that_matter(policy, {1, 6, 6, "a.service"}, "a"), (Names{{AccountKind::kUser, "web"}}));
        EXPECT_EQ(names_that_matter(policy, {1, 5, 6, "a.service"}, "a"), Names{});
        EXPECT_EQ(names_that_matter(policy, {1, 6, 6, "b.service"}, "a"), Names{});
        EXPECT_EQ(names_that_matter(policy, {1, 7, 6, ""}, "b"), (Names{{AccountKind::kGroup, "www"}}));
        EXPECT_EQ(names_that_matter(policy, {1, 6, 6, ""}, ""),
                  (Names{{AccountKind::kUser, "more"}, {AccountKind::kGroup, "www"}}));
        EXPECT_EQ(account_names(policy),
                  (Names{{AccountKind::kUser, "more"}, {AccountKind::kUser, "web"}, {AccountKind::kGroup, "www"}}));
}

TEST(StillAdmitted, ByWhatAdmitsTodayOrTheNameThatDidOrANameWithoutAnAnswer) {
        const auto stays = [](const std::string& text, const Peer& peer) {
                const auto policy = test::policy_of(text + "ListenStream=80\n");
                return StillAdmitted(policy.services.front(), kAway).admits(peer);
        };
        const Peer by_name{
                .pid = 1, .uid = 70, .gid = 71, .user_name = account_hash("was"), .group_name = account_hash("were")};
        const Peer by_number{.pid = 1, .uid = 70, .gid = 71};
        EXPECT_TRUE(stays("[Service a]\nUser=was\n", by_name)) << "though it does not exist any more";
        EXPECT_TRUE(stays("[Service a]\nUser=was\nGroup=were\n", by_name));
        EXPECT_FALSE(stays("[Service a]\nUser=was\nGroup=other\n", by_name));
        EXPECT_FALSE(stays("[Service a]\nUser=other\n", by_name));
        EXPECT_FALSE(stays("[Service a]\nUser=was\n", by_number));
        EXPECT_TRUE(stays("[Service a]\nUser=70\n", by_number));
        EXPECT_FALSE(stays("[Service a]\nUser=71\n", by_number));
        EXPECT_TRUE(stays("[Service a]\nUser=other gone\n", by_number)) << "neither there nor not there";
        EXPECT_FALSE(stays("[Service a]\nUnit=a.service\nUser=70\n", by_number));
        EXPECT_FALSE(stays("[Service a]\n", by_number));
}

TEST(StillAdmitted, AsksForEachNameOnceHoweverManyRegistrantsThereAre) {
        std::string text = "[Service a]\nUnit=a@*.service\nUser=u0";
        for (int i = 1; i < 50; i++) {
                text += fmt::format(" u{}", i);
        }
        const auto policy = test::policy_of(text + "\nListenStream=80\n");
        std::size_t asked = 0;
        const Accounts counting{.user = [&](const std::string& name) -> AccountAnswer {
                                        asked++;
                                        return name == "u49" ? std::optional<std::uint32_t>(70) : std::nullopt;
                                },
                                .group = kAway.group};
        StillAdmitted still(policy.services.front(), counting);
        for (uid_t uid = 0; uid < 100; uid++) {
                EXPECT_EQ(still.admits({.pid = 1, .uid = uid, .gid = 0, .unit = "a@1.service"}), uid == 70);
        }
        EXPECT_FALSE(still.admits({.pid = 1, .uid = 70, .gid = 0, .unit = "b.service"}));
        EXPECT_EQ(asked, 50U);
}

TEST(UnknownAccounts, AreWarningsAtTheirPlace) {
        const auto policy =
                test::policy_of("[Service a]\nUser=web not-yet 61001\nGroup=nogroup www gone\nListenStream=80\n");
        const auto warnings = unknown_accounts(policy, kAway);
        ASSERT_EQ(warnings.size(), 3U);
        EXPECT_EQ(warnings[2].to_string(),
                  "x.conf:3: Group=: gone has no answer from this host's directory just now (NSS), so what was known "
                  "of it "
                  "counts");
        EXPECT_EQ(warnings[0].severity, Severity::kWarning);
        EXPECT_EQ(warnings[0].to_string(),
                  "x.conf:2: User=: not-yet does not exist on this host, so it matches nobody");
        EXPECT_EQ(warnings[1].to_string(),
                  "x.conf:3: Group=: nogroup stands for ids that the kernel cannot name, so it matches nobody");
}

}  // namespace
}  // namespace sockbroker
