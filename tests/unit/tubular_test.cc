// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bindings of tubular become a policy that dispatches the same, or an error that names the binding.
#include "broker/ctl/tubular.h"

#include <gtest/gtest.h>

#include "broker/policy/parse.h"
#include "broker/policy/precedence.h"

namespace sockbroker::ctl {
namespace {

std::string binding(const std::string& label, const std::string& prefix, const std::string& port) {
        return "{\"label\": \"" + label + "\", \"prefix\": \"" + prefix + "\", \"port\": " + port + "}";
}

std::string file(const std::string& bindings) {
        return "{\"bindings\": [" + bindings + "]}";
}

// Who gets a packet to there, "" nobody.
std::string gets(const std::string& text, const std::string& to, Protocol protocol = Protocol::kTcp) {
        const auto policy = policy_of_tubular(text);
        EXPECT_TRUE(policy) << policy.error().text();
        const auto parsed = parse_policy({{"x.conf", *policy}}, {});
        EXPECT_TRUE(parsed.policy) << parsed.diagnostics.at(0).to_string();
        const auto met = bindings_met(*parsed.policy, {}, {.protocol = protocol, .to = *parse_endpoint(to)}, 1);
        return met.first.empty() ? "" : met.first[0].service->name;
}

std::string mistake(const std::string& text) {
        const auto policy = policy_of_tubular(text);
        return policy ? "" : policy.error().text();
}

TEST(Tubular, TheBindingsOfItsOwnTests) {
        const auto text = file(binding("foo", "127.0.0.1/32", "0") + "," + binding("bar", "::1/64", "0") + "," +
                               binding("foo-port", "127.0.0.2/32", "53") + "," + binding("bar-port", "1::1/64", "53"));
        const auto policy = policy_of_tubular(text);
        ASSERT_TRUE(policy);
        EXPECT_NE(policy->find("[Service bar]\n#Unit=bar.service\nListenStream=[::]/64:*\nListenDatagram=[::]/64:*\n"),
                  std::string::npos)
                << *policy;
        EXPECT_EQ(gets(text, "127.0.0.1:9"), "foo");
        EXPECT_EQ(gets(text, "127.0.0.2:53", Protocol::kUdp), "foo-port");
        EXPECT_EQ(gets(text, "[1::7]:53"), "bar-port");
        EXPECT_EQ(gets(text, "127.0.0.2:54"), "");
}

TEST(Tubular, ThePortGoesBeforeThePrefixAsThere) {
        const auto text =
                file(binding("dns", "192.0.2.0/24", "53") + "," + binding("any", "192.0.2.128/25", "0") + "," +
                     binding("wide", "192.0.0.0/16", "53") + "," + binding("one", "192.0.2.130/32", "53"));
        EXPECT_EQ(gets(text, "192.0.2.129:53"), "dns");
        EXPECT_EQ(gets(text, "192.0.2.129:54"), "any");
        EXPECT_EQ(gets(text, "192.0.2.130:53"), "one");
        EXPECT_EQ(gets(text, "192.0.9.1:53"), "wide");
}

TEST(Tubular, AnAddressAloneIsOne) {
        EXPECT_EQ(gets(file(binding("web", "192.0.2.1", "80")), "192.0.2.1:80"), "web");
}

TEST(Tubular, MistakesNameTheBinding) {
        EXPECT_NE(mistake("[]").find("load-bindings"), std::string::npos);
        EXPECT_NE(mistake("{\"bindings\": [").find("load-bindings"), std::string::npos);
        EXPECT_EQ(mistake(file(binding("web", "192.0.2.0/24", "80") + ",{\"label\": \"x\", \"prefix\": \"::/0\"}")),
                  "binding 2: it needs label, prefix and port (0 to 65535), and nothing else");
        EXPECT_NE(mistake(file(binding("a b", "192.0.2.0/24", "80"))).find("binding 1: the label \"a b\" cannot be"),
                  std::string::npos);
        EXPECT_NE(mistake(file(binding("web", "192.0.2.0/33", "80"))).find("of at most 32"), std::string::npos);
        EXPECT_NE(mistake(file(binding("web", "::ffff:192.0.2.0/120", "80"))).find("v4-mapped"), std::string::npos);
        EXPECT_NE(mistake(file(binding("web", "192.0.2.0/24", "70000"))).find("binding 1"), std::string::npos);
        EXPECT_NE(mistake(file(binding("web", "192.0.2.0/24", "80") + "," + binding("dns", "192.0.2.9/24", "80")))
                          .find("binding 2: 192.0.2.0/24 with port 80 is bound to web already"),
                  std::string::npos);
}

TEST(Tubular, WhatAPolicyCannotHaveIsAMistakeOfItsBinding) {
        for (const auto* prefix : {"0.0.0.0", "0.0.0.0/32", "::", "224.0.0.251", "ff02::/16", "255.255.255.255/32"}) {
                const auto said = mistake(file(binding("a", "192.0.2.0/24", "53") + "," + binding("b", prefix, "53")));
                EXPECT_TRUE(said.starts_with("binding 2: ")) << prefix << ": " << said;
                EXPECT_NE(said.find(std::string_view(prefix).starts_with("0.") || std::string_view(prefix) == "::"
                                            ? "one address, which no packet is sent to"
                                            : "never reach"),
                          std::string::npos)
                        << said;
        }
        EXPECT_EQ(gets(file(binding("a", "0.0.0.0/0", "53")), "9.9.9.9:53"), "a");
}

}  // namespace
}  // namespace sockbroker::ctl
