// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/net.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace sockbroker {
namespace {

TEST(Net, PrefixesPrintAsTheyAreWritten) {
        for (const char* text : {"1.0.0.0/24", "0.0.0.0/0", "127.0.0.1/32", "2606:4700::/32", "::/0", "::1/128"}) {
                const auto prefix = parse_prefix(text);
                ASSERT_TRUE(prefix) << prefix.error().text();
                EXPECT_EQ(prefix->to_string(), text);
        }
}

TEST(Net, AnAddressAloneIsAHostPrefix) {
        EXPECT_EQ(parse_prefix("10.1.2.3")->to_string(), "10.1.2.3/32");
        EXPECT_EQ(parse_prefix("2606::1")->to_string(), "2606::1/128");
}

TEST(Net, AMappedAddressStandsForTheIpv4OneInItAndNoOtherForAny) {
        Address mapped{.family = Family::kIpv6, .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4}};
        EXPECT_EQ(unmapped(mapped).to_string(), "1.2.3.4");
        for (const std::size_t at : {0U, 9U, 10U, 11U}) {
                auto other = mapped;
                other.bytes[at] ^= 1;
                EXPECT_EQ(unmapped(other), other) << at;
        }
        Address ipv4{.family = Family::kIpv4, .bytes = mapped.bytes};
        EXPECT_EQ(unmapped(ipv4), ipv4);
        EXPECT_EQ(unmapped(*parse_address("::1.2.3.4")).to_string(), "::1.2.3.4");
}

TEST(Net, BadPrefixesAreErrorsThatNameTheRemedy) {
        EXPECT_EQ(parse_prefix("1.0.0.1/24").error().message, "host bits are set in 1.0.0.1/24, write 1.0.0.0/24");
        EXPECT_EQ(parse_prefix("1.0.0.0/33").error().message, "prefix length \"33\" is not a number from 0 to 32");
        for (const char* text :
             {"", "1.0.0", "1.0.0.0/", "1.0.0.0/024", "1.0.0.0/+8", "::ffff:1.2.3.4", "::ffff:0:0/96", "::fffe:0:0/95",
              "fe80::1%lo", "::/129", "1.0.0.0/-1", "1.0.0.0 /8", "01.0.0.0/8"}) {
                EXPECT_FALSE(parse_prefix(text)) << text;
        }
}

TEST(Net, Ipv4AddressesAreThoseOfInetPton) {
        std::mt19937 random(1);
        constexpr std::string_view kBytes = "0123456789.. -a:";
        for (unsigned i = 0; i < 200000; i++) {
                auto text = fmt::format("{}.{}.{}.{}", random() % 300, random() % 300, random() % 300, random() % 300);
                for (auto mutations = random() % 3; mutations > 0; mutations--) {
                        const auto at = random() % text.size();
                        switch (random() % 3) {
                        case 0:
                                text[at] = kBytes[random() % kBytes.size()];
                                break;
                        case 1:
                                text.insert(at, 1, kBytes[random() % kBytes.size()]);
                                break;
                        default:
                                text.erase(at, 1);
                        }
                }
                Address wanted;
                const bool good = inet_pton(AF_INET, text.c_str(), wanted.bytes.data()) == 1;
                const auto got = parse_address(text);
                ASSERT_EQ(got && got->family == Family::kIpv4, good) << text;
                ASSERT_TRUE(!good || *got == wanted) << text;
        }
        EXPECT_FALSE(parse_address(std::string_view("1.2.3.4\0", 8)));
}

TEST(Net, MaskingClearsEachBitAfterTheLength) {
        Address ones;
        ones.bytes.fill(0xff);
        for (unsigned length = 0; length <= 200; length++) {
                const auto bytes = masked(ones, length).bytes;
                for (unsigned bit = 0; bit < 128; bit++) {
                        ASSERT_EQ((bytes[bit / 8] >> (7 - bit % 8) & 1) != 0, bit < length) << length << " " << bit;
                }
        }
}

TEST(Net, PrefixesContainTheAddressesBelowThemInTheirOwnFamily) {
        EXPECT_TRUE(parse_prefix("10.0.0.0/9")->contains(*parse_address("10.127.255.255")));
        EXPECT_FALSE(parse_prefix("10.0.0.0/9")->contains(*parse_address("10.128.0.0")));
        EXPECT_FALSE(parse_prefix("::/0")->contains(*parse_address("10.128.0.0")));
}

TEST(Net, PortsAreOneARangeOrAny) {
        EXPECT_EQ(*parse_ports("53"), (PortRange{53, 53}));
        EXPECT_EQ(*parse_ports("1024-65535"), (PortRange{1024, 65535}));
        EXPECT_EQ(parse_ports("*")->to_string(), "*");
        EXPECT_EQ(parse_ports("9-8").error().message, "port range 9-8 runs backwards, write 8-9");
        EXPECT_EQ(parse_ports("0").error().message, "port 0 cannot be bound, ports run from 1 to 65535");
        for (const char* text : {"", "-", "1-", "-1", "65536", "1-65536", "053", "1 ", "+1", "1-2-3", "**"}) {
                EXPECT_FALSE(parse_ports(text)) << text;
        }
}

TEST(Net, EndpointsBracketIpv6) {
        EXPECT_EQ(parse_endpoint("1.0.0.1:53")->to_string(), "1.0.0.1:53");
        EXPECT_EQ(parse_endpoint("[2606:4700::1]:53")->to_string(), "[2606:4700::1]:53");
        EXPECT_FALSE(parse_endpoint("2606:4700::1:53"));
        EXPECT_FALSE(parse_endpoint("[1.0.0.1]:53"));
}

}  // namespace
}  // namespace sockbroker
