// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is different in another policy, beside the same question asked of sets.
#include "broker/policy/changes.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include <fmt/format.h>

#include "tests/unit/support/policy.h"

namespace sockbroker {
namespace {

using test::policy_of;

using Owners = std::map<std::string, std::string>;  // a line of a binding, and whose it is

std::string text_of(const Owners& owners) {
        std::map<std::string, std::string> sections;
        for (const auto& [line, service] : owners) {
                sections[service] += line + "\n";
        }
        std::string text;
        for (const auto& [service, lines] : sections) {
                text += fmt::format("[Service {}]\nUser=1\n{}", service, lines);
        }
        return text;
}

std::string line_of(const Policy& policy, const BindingReference& at) {
        const auto& binding = policy.services.at(at.service).bindings.at(at.binding);
        const auto prefix = binding.prefix.to_string();
        const bool is_ipv4 = binding.prefix.address.family == Family::kIpv4;
        const auto slash = prefix.find('/');
        return fmt::format("{}={}:{}", binding.protocol == Protocol::kTcp ? "ListenStream" : "ListenDatagram",
                           is_ipv4 ? prefix : fmt::format("[{}]{}", prefix.substr(0, slash), prefix.substr(slash)),
                           binding.ports.to_string());
}

const std::string& service_of(const Policy& policy, const BindingReference& at) {
        return policy.services.at(at.service).name;
}

std::multiset<std::string> told(const PolicyChanges& changes, const Policy& before, const Policy& after) {
        std::multiset<std::string> result;
        for (const auto& one : changes.bindings) {
                switch (one.kind) {
                case BindingChange::Kind::kRemoved:
                        result.insert(
                                fmt::format("- {} {}", service_of(before, one.before), line_of(before, one.before)));
                        break;
                case BindingChange::Kind::kAdded:
                        result.insert(fmt::format("+ {} {}", service_of(after, one.after), line_of(after, one.after)));
                        break;
                case BindingChange::Kind::kMoved:
                        EXPECT_EQ(line_of(before, one.before), line_of(after, one.after));
                        result.insert(fmt::format("{} > {} {}", service_of(before, one.before),
                                                  service_of(after, one.after), line_of(after, one.after)));
                        break;
                }
        }
        return result;
}

std::multiset<std::string> expected(const Owners& before, const Owners& after) {
        std::multiset<std::string> result;
        for (const auto& [line, service] : before) {
                const auto now = after.find(line);
                if (now == after.end()) {
                        result.insert(fmt::format("- {} {}", service, line));
                } else if (now->second != service) {
                        result.insert(fmt::format("{} > {} {}", service, now->second, line));
                }
        }
        for (const auto& [line, service] : after) {
                if (!before.contains(line)) {
                        result.insert(fmt::format("+ {} {}", service, line));
                }
        }
        return result;
}

TEST(Changes, WhatIsAddedRemovedAndMovedIsWhatSetsSay) {
        std::mt19937 random(20261130);  // NOLINT(bugprone-random-generator-seed,cert-msc51-cpp): to be repeated
        const auto any = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
        const auto some = [&] {
                Owners owners;
                for (unsigned n = any(24); n > 0; n--) {
                        owners[fmt::format("{}={}:{}", any(2) != 0 ? "ListenStream" : "ListenDatagram",
                                           any(2) != 0 ? fmt::format("10.0.{}.0/24", any(3))
                                                       : fmt::format("[2001:db8:{}::]/48", any(3) + 1),
                                           80 + any(3))] = fmt::format("s{}", any(4));
                }
                return owners;
        };
        for (int round = 0; round < 2000; round++) {
                const auto before = some();
                const auto after = some();
                const auto one = policy_of(text_of(before));
                const auto other = policy_of(text_of(after));
                const auto changes = changes_between(one, other);
                ASSERT_EQ(told(changes, one, other), expected(before, after)) << text_of(before) << "\n"
                                                                              << text_of(after);
                ASSERT_EQ(changes.any(), before != after);
                ASSERT_FALSE(changes_between(one, one).any());
        }
}

TEST(Changes, SourcesAndInterfacesAreBindingsOfTheirOwn) {
        const auto before = policy_of("[Service a]\nUser=1\nListenStream=10.0.0.0/24:80\nSource=192.0.2.0/24\n");
        const auto after = policy_of(
                "[Service a]\nUser=1\nListenStream=10.0.0.0/24:80\nSource=192.0.2.0/24\nSource=198.51.100.0/24\n"
                "Interface=eth0\n");
        const auto changes = changes_between(before, after);
        std::map<BindingChange::Kind, int> kinds;
        for (const auto& one : changes.bindings) {
                kinds[one.kind]++;
        }
        EXPECT_EQ(kinds[BindingChange::Kind::kRemoved], 1) << "of any interface";
        EXPECT_EQ(kinds[BindingChange::Kind::kAdded], 2);
}

TEST(Changes, ASourceOfAllClientsIsAnyClientInEachFamily) {
        for (const auto* const binding : {"10.0.0.0/24:80", "[2001:db8::]/48:80", "80"}) {
                const auto line = fmt::format("[Service a]\nUser=1\nListenStream={}\n", binding);
                const auto any = policy_of(line);
                const auto all = policy_of(line + "Source=0.0.0.0/0 ::/0\n");
                EXPECT_FALSE(changes_between(any, all).any()) << binding;
                EXPECT_FALSE(changes_between(all, any).any()) << binding;
        }
}

TEST(Changes, PortsAloneAreOneChangeForBothFamiliesIfBothChangeAlike) {
        const auto none = policy_of("[Service a]\nUser=1\nListenStream=81\n");
        const auto both = policy_of("[Service a]\nUser=1\nListenStream=81\nListenStream=80\n");
        const auto added = changes_between(none, both);
        ASSERT_EQ(added.bindings.size(), 1U);
        EXPECT_TRUE(added.bindings.front().both_families);
        const auto half = policy_of("[Service a]\nUser=1\nListenStream=81\nListenStream=0.0.0.0/0:80\n");
        const auto rest = changes_between(half, both);
        ASSERT_EQ(rest.bindings.size(), 1U);
        EXPECT_FALSE(rest.bindings.front().both_families) << "that of IPv4 was there";
        const auto other = policy_of("[Service b]\nUser=1\nListenStream=80\n[Service a]\nUser=1\nListenStream=81\n");
        const auto moved = changes_between(both, other);
        ASSERT_EQ(moved.bindings.size(), 1U);
        EXPECT_EQ(moved.bindings.front().kind, BindingChange::Kind::kMoved);
        EXPECT_TRUE(moved.bindings.front().both_families);
}

TEST(Changes, SettingsAreNamedByTheirKeysAndOnlyOfServicesInBoth) {
        const auto before = policy_of("[Service a]\nUser=1\nListenStream=80\n[Service b]\nUser=1\nListenStream=81\n");
        const auto after = policy_of(
                "[Service a]\nUser=1\nUser=2\nHoldSec=5\nListenStream=80\n[Service c]\nUser=1\nHoldSec=9\n"
                "ListenStream=82\n");
        const auto changes = changes_between(before, after);
        ASSERT_EQ(changes.settings.size(), 1U);
        EXPECT_EQ(changes.settings.front().service, "a");
        EXPECT_EQ(changes.settings.front().keys, (std::vector<std::string>{"User", "HoldSec"}));
}

}  // namespace
}  // namespace sockbroker
