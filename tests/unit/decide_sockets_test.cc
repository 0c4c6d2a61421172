// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which sockets fit a service, and when it is full or taken; each refusal with its message and the place in the policy
// that decided.
#include <sys/socket.h>

#include <gtest/gtest.h>

#include "broker/policy/decide.h"
#include "tests/unit/support/policy.h"

namespace sockbroker {
namespace {

constexpr std::uint64_t kNetns = 7;

SocketFacts socket(Protocol protocol, SocketFamily family, std::uint16_t port = 80) {
        SocketFacts facts;
        const bool tcp = protocol == Protocol::kTcp;
        facts.domain = family == SocketFamily::kIpv4 ? AF_INET : AF_INET6;
        facts.type = tcp ? SOCK_STREAM : SOCK_DGRAM;
        facts.protocol_number = tcp ? 6 : 17;
        facts.listening = tcp;
        facts.netns_cookie = kNetns;
        facts.protocol = protocol;
        facts.family = family;
        facts.bound = {*parse_address(family == SocketFamily::kIpv4   ? "127.0.0.1"
                                      : family == SocketFamily::kIpv6 ? "::1"
                                                                      : "::"),
                       port};
        return facts;
}

constexpr auto kTcp = Protocol::kTcp;
constexpr auto kUdp = Protocol::kUdp;
constexpr auto k4 = SocketFamily::kIpv4;
constexpr auto k6 = SocketFamily::kIpv6;
constexpr auto kDual = SocketFamily::kDual;

const char* const kBindings = R"([Service both]
User=1
ListenStream=80
ListenDatagram=192.0.2.0/24:53
[Service four]
User=1
ListenStream=192.0.2.0/24:*
[Service many]
User=1
Handover=share
ListenStream=0.0.0.0/0:8080
ListenStream=[::]/0:8080
[Service named]
User=1
ListenStream=443
ListenStream=192.0.2.0/24:443
ListenDatagram=[2001:db8::]/32:53
Source=10.0.0.0/8
[Service six]
User=1
ListenDatagram=[2001:db8::]/32:1000-2000
)";

struct Fit {
        const char* service;
        std::vector<SocketFacts> sockets;
        const char* serves;  // a word a socket: 4, 6, 46; empty: wrong-socket
};

TEST(CheckSockets, EachServesTheFamiliesThatItCanAndNoneTwice) {
        const auto policy = test::policy_of(kBindings);
        const Fit cases[] = {
                {"both", {socket(kTcp, k4)}, "4"},
                {"both", {socket(kTcp, k6)}, "6"},
                {"both", {socket(kTcp, kDual)}, "46"},
                {"both", {socket(kTcp, k4), socket(kTcp, k6)}, "4 6"},
                {"both", {socket(kTcp, kDual), socket(kTcp, k4)}, "6 4"},
                {"both", {socket(kTcp, k6), socket(kTcp, kDual)}, "6 4"},
                {"both", {socket(kTcp, k4), socket(kUdp, k4, 53)}, "4 4"},
                {"both", {socket(kTcp, kDual), socket(kUdp, kDual, 53)}, "46 46"},
                {"both", {socket(kUdp, k6, 53)}, ""},
                {"both", {socket(kTcp, k4), socket(kTcp, k4)}, ""},
                {"both", {socket(kTcp, kDual), socket(kTcp, kDual)}, ""},
                {"both", {socket(kTcp, kDual), socket(kTcp, k4), socket(kTcp, k6)}, ""},
                {"four", {socket(kTcp, k4, 12345)}, "4"},
                {"four", {socket(kTcp, kDual)}, "46"},
                {"four", {socket(kTcp, k6)}, ""},
                {"four", {socket(kUdp, k4)}, ""},
                {"four",
                 {socket(kTcp, k4), socket(kTcp, kDual)},
                 ""},  // the second has nothing left that a binding uses
                {"many", {socket(kTcp, k4), socket(kTcp, k4), socket(kTcp, k4)}, "4 4 4"},
                {"many", {socket(kTcp, kDual), socket(kTcp, kDual)}, "46 46"},
                {"many", {socket(kTcp, kDual), socket(kTcp, k4), socket(kTcp, kDual)}, "6 4 6"},
                {"many", {socket(kTcp, kDual), socket(kTcp, k4), socket(kTcp, k6)}, ""},
                {"named", {socket(kTcp, k4)}, "4"},  // Source= leaves IPv6 no client
                {"named", {socket(kTcp, kDual)}, "46"},
                {"named", {socket(kTcp, k6)}, ""},
                {"named", {socket(kUdp, kDual, 53)}, ""},
                {"named", {socket(kTcp, k4), socket(kTcp, k6)}, ""},
                {"six", {socket(kUdp, k6, 4)}, "6"},  // the port is the service's affair
                {"six", {socket(kUdp, kDual, 1500)}, "46"},
                {"six", {socket(kUdp, k4, 1500)}, ""},
        };
        for (const auto& one : cases) {
                const auto* service = policy.find(one.service);
                const auto result = check_sockets(policy, *service, one.sockets, kNetns);
                std::string serves;
                if (result) {
                        ASSERT_EQ(result->size(), one.sockets.size());
                        for (const auto& assignment : *result) {
                                serves += serves.empty() ? "" : " ";
                                serves += assignment.ipv4 ? "4" : "";
                                serves += assignment.ipv6 ? "6" : "";
                        }
                } else {
                        EXPECT_EQ(result.error().code, ResultCode::kWrongSocket) << result.error().message;
                        EXPECT_EQ(result.error().rule, policy.location(service->where));
                }
                EXPECT_EQ(serves, one.serves) << "case " << &one - cases;
        }
}

TEST(CheckSockets, RefusalsSayWhichSocketAndWhatToDo) {
        const auto policy = test::policy_of(kBindings);
        const auto message = [&](const char* service, const std::vector<SocketFacts>& sockets) {
                return check_sockets(policy, *policy.find(service), sockets, kNetns).error().message;
        };
        EXPECT_EQ(message("four", {socket(kTcp, k6, 8080)}),
                  "service four has no ListenStream= binding of IPv6 that the socket bound to [::1]:8080 could serve, "
                  "add one "
                  "or hand over another socket");
        EXPECT_EQ(message("four", {socket(kUdp, kDual, 53)}),
                  "service four has no ListenDatagram= binding of IPv4 or IPv6 that the socket bound to [::]:53 could "
                  "serve, "
                  "add one or hand over another socket");
        EXPECT_EQ(
                message("named", {socket(kTcp, k6, 443)}),
                "service named has Source= for IPv4 only, so no client could reach the socket bound to [::1]:443: add "
                "a Source= of IPv6 or hand over another socket");
        EXPECT_EQ(
                message("both", {socket(kTcp, k4, 80), socket(kTcp, k4, 81)}),
                "the sockets bound to 127.0.0.1:80 and 127.0.0.1:81 are both for TCP and IPv4 of service both, each of "
                "its clients, whatever the port, would come to one of them: make another service for the other port "
                "(a section of its own, and its name as FDNAME= or FileDescriptorName=). Handover=share would mix "
                "the clients of port 80 and port 81");
        EXPECT_EQ(message("both", {socket(kTcp, k4, 80), socket(kTcp, k4, 80)}),
                  "the sockets bound to 127.0.0.1:80 and 127.0.0.1:80 are both for TCP and IPv4 of service both, each "
                  "client would find one of them only: hand over one, or, where they are workers that all answer "
                  "alike, say Handover=share");
}

TEST(CheckSockets, WhatIsWrongWithTheSocketItselfComesFirst) {
        const auto policy = test::policy_of(kBindings);
        auto foreign = socket(kTcp, k4);
        foreign.netns_cookie = kNetns + 1;
        auto deaf = socket(kTcp, k4);
        deaf.listening = false;
        const auto code = [&](const std::vector<SocketFacts>& sockets) {
                return check_sockets(policy, *policy.find("six"), sockets, kNetns).error().code;
        };
        EXPECT_EQ(code({foreign}), ResultCode::kForeignNetns);
        EXPECT_EQ(code({deaf}), ResultCode::kNotListening);
        EXPECT_EQ(code({SocketFacts{}}), ResultCode::kWrongSocket);
        EXPECT_EQ(code({socket(kUdp, k6), foreign}), ResultCode::kForeignNetns)
                << "every socket of a message is checked";
}

TEST(CheckOccupancy, TheQuotaIsCountedAsAfterTheSwitch) {
        const auto policy = test::policy_of("[Service a]\nUser=1\nListenStream=80\nMaxSockets=3\n");
        const auto& service = policy.services[0];
        const std::vector<SocketFacts> two{socket(kTcp, k4), socket(kTcp, k6)};
        const std::vector<Assignment> families{{true, false}, {false, true}};
        EXPECT_FALSE(check_occupancy(policy, service, two, families, {.live = 1}));
        const auto refusal = check_occupancy(policy, service, two, families, {.live = 2});
        ASSERT_TRUE(refusal);
        EXPECT_EQ(refusal->code, ResultCode::kQuota);
        EXPECT_EQ(refusal->message,
                  "service a would have 4 live sockets, MaxSockets=3 allows no more: close old ones or raise it");
        EXPECT_EQ(refusal->rule, "x.conf:1");
        EXPECT_TRUE(check_occupancy(policy, service, two, families, {.live = 4294967295})) << "the sum does not wrap";
}

TEST(CheckOccupancy, HandoverRefuseLetsNobodyDisplaceALiveSocket) {
        const auto policy = test::policy_of(
                "[Service a]\nUser=1\nListenStream=80\nHandover=refuse\nMaxSockets=2\n"
                "[Service b]\nUser=1\nListenStream=81\n");
        const auto& refuses = policy.services[0];
        const auto& replaces = policy.services[1];
        const std::vector<SocketFacts> one{socket(kTcp, kDual)};
        const std::vector<Assignment> both{{true, true}};
        const std::vector<Assignment> only6{{false, true}};
        Occupancy taken{.live = 1};
        taken.holder[0][0] = "pid 12, uid 1000, unit a.service";

        const auto refusal = check_occupancy(policy, refuses, one, both, taken);
        ASSERT_TRUE(refusal);
        EXPECT_EQ(refusal->code, ResultCode::kBusy);
        EXPECT_EQ(refusal->message,
                  "TCP IPv4 of service a is served by pid 12, uid 1000, unit a.service and Handover=refuse lets nobody "
                  "displace "
                  "it, end that one first");
        EXPECT_EQ(refusal->rule, "x.conf:1");
        EXPECT_FALSE(check_occupancy(policy, refuses, one, only6, taken)) << "the other family is free";
        EXPECT_FALSE(check_occupancy(policy, replaces, one, both, taken));
        EXPECT_FALSE(check_occupancy(policy, refuses, one, both, {}));

        taken.live = 2;
        EXPECT_EQ(check_occupancy(policy, refuses, one, both, taken)->code, ResultCode::kQuota)
                << "quota comes before busy";
}

}  // namespace
}  // namespace sockbroker
