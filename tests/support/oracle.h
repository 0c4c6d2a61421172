// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a packet must meet, said in the words of the specification and in nothing of the compiler's; and random rules
// and packets that are likely to meet each other. Used by the unit test of the compiler and by the test in the kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <tuple>
#include <vector>

#include "broker/dataplane/rules.h"

namespace sockbroker::oracle {

struct Packet {
        Protocol protocol = Protocol::kTcp;
        Address to;
        std::uint16_t port = 0;
        Address from;
        std::uint32_t ifindex = 0;
};

enum class Verdict : std::uint8_t { kSocket, kRefused, kPass };

struct Answer {
        Verdict verdict = Verdict::kPass;
        ServiceId service = 0;  // of the rule that decided
        bool operator==(const Answer&) const = default;
};

inline bool loopback(const Address& address) {
        static const Address kOne = *parse_address("::1");
        return address.family == Family::kIpv4 ? address.bytes[0] == 127 : address == kOne;
}

inline bool matches(const Rule& rule, const Packet& packet) {
        const unsigned too_short = packet.to.family == Family::kIpv4 ? 8 : 16;
        return rule.protocol == packet.protocol && rule.prefix.contains(packet.to) &&
               rule.ports.contains(packet.port) && (!rule.source || rule.source->contains(packet.from)) &&
               (rule.ifindex == 0 || rule.ifindex == packet.ifindex) &&
               !(loopback(packet.to) && rule.prefix.length < too_short);
}

// Longest destination, narrower ports, longest source, a named interface over any.
inline bool more_specific(const Rule* a, const Rule* b) {
        const auto rank = [](const Rule* rule) {
                return std::tuple(-int{rule->prefix.length}, rule->ports.width(),
                                  rule->source ? -int{rule->source->length} : 0, rule->ifindex == 0);
        };
        return rank(a) < rank(b);
}

inline Answer ask(const std::vector<Rule>& rules, const Packet& packet, const std::function<bool(ServiceId)>& live) {
        std::vector<const Rule*> found;
        for (const Rule& rule : rules) {
                if (matches(rule, packet)) {
                        found.push_back(&rule);
                }
        }
        std::sort(found.begin(), found.end(), more_specific);
        for (const Rule* rule : found) {
                if (live(rule->service)) {
                        return {Verdict::kSocket, rule->service};
                }
                if (rule->absent != Absent::kNext) {
                        return {rule->absent == Absent::kRefuse ? Verdict::kRefused : Verdict::kPass, rule->service};
                }
        }
        return {};
}

// Which mixture: each test says what it wants more of.
struct Shape {
        std::size_t rules = 100;
        std::size_t services = 8;
        double conditions = 0.3;  // how many have a source, an interface
        double next = 0.3;        // how many are Absent::kNext
        bool many_ports = false;  // many ranges on few prefixes
};

class Generator {
public:
        explicit Generator(std::uint32_t seed) : random_(seed) {}

        std::uint32_t below(std::uint32_t limit) { return random_() % limit; }
        bool chance(double of) { return std::uniform_real_distribution<>()(random_) < of; }

        // Few bits vary, so that prefixes nest and packets hit; loopback and the all-zero address among them.
        Address address(Family family) {
                static const Address kSome[] = {*parse_address("0.0.0.0"),
                                                *parse_address("127.0.0.1"),
                                                *parse_address("10.1.2.3"),
                                                *parse_address("172.65.128.0"),
                                                *parse_address("255.255.255.255"),
                                                *parse_address("::"),
                                                *parse_address("::1"),
                                                *parse_address("2606:4700::1"),
                                                *parse_address("2606:4700:0:42:8000::"),
                                                *parse_address("2a00:0:0:ffff:ffff:ffff:ffff:ffff")};
                Address result = family == Family::kIpv4 ? kSome[below(5)] : kSome[5 + below(5)];
                if (chance(0.7)) {
                        const unsigned bit = below(address_bits(family));
                        result.bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80 >> bit % 8);
                }
                return result;
        }

        Prefix prefix(Family family) {
                static constexpr std::uint8_t kV4[] = {0, 7, 8, 9, 16, 20, 24, 28, 32};
                static constexpr std::uint8_t kV6[] = {0, 15, 16, 32, 48, 63, 64, 65, 80, 127, 128};
                const std::uint8_t common = family == Family::kIpv4 ? kV4[below(9)] : kV6[below(11)];
                const std::uint8_t any = static_cast<std::uint8_t>(below(address_bits(family) + 1));
                const std::uint8_t length = chance(0.8) ? common : any;
                return {masked(address(family), length), length};
        }

        std::uint16_t port() {
                static constexpr std::uint16_t kSome[] = {1, 2, 53, 80, 443, 1023, 1024, 32767, 32768, 65534, 65535};
                return chance(0.5) ? kSome[below(11)] : static_cast<std::uint16_t>(1 + below(40));
        }

        PortRange ports() {
                if (chance(0.3)) {
                        return {};
                }
                const std::uint16_t a = port();
                const std::uint16_t b = chance(0.5) ? a : port();
                return {std::min(a, b), std::max(a, b)};
        }

        // Leaves out what a policy could not say: port ranges that neither nest nor are disjoint, a rule twice.
        std::vector<Rule> rules(const Shape& shape) {
                std::vector<Rule> result;
                for (std::size_t i = 0; i < shape.rules; i++) {
                        const Family family = chance(0.5) ? Family::kIpv4 : Family::kIpv6;
                        Rule rule;
                        rule.protocol = chance(0.5) ? Protocol::kTcp : Protocol::kUdp;
                        rule.prefix = shape.many_ports ? Prefix{address(family), 0} : prefix(family);
                        if (shape.many_ports) {
                                rule.prefix.length = static_cast<std::uint8_t>(8 * below(3));
                                rule.prefix.address = masked(rule.prefix.address, rule.prefix.length);
                        }
                        rule.ports = ports();
                        if (chance(shape.conditions)) {
                                rule.source = prefix(family);
                        }
                        if (chance(shape.conditions)) {
                                rule.ifindex = 1 + below(3);
                        }
                        rule.service = 1 + below(static_cast<std::uint32_t>(shape.services));
                        rule.absent = chance(shape.next) ? Absent::kNext
                                      : chance(0.5)      ? Absent::kRefuse
                                                         : Absent::kPass;
                        const bool sayable = std::none_of(result.begin(), result.end(),
                                                          [&](const Rule& other) { return clashes(rule, other); });
                        if (sayable) {
                                result.push_back(rule);
                        }
                }
                return result;
        }

        Packet packet(const std::vector<Rule>& rules) {
                Packet result;
                result.protocol = chance(0.5) ? Protocol::kTcp : Protocol::kUdp;
                const Family family = chance(0.5) ? Family::kIpv4 : Family::kIpv6;
                result.to = address(family);
                result.from = address(family);
                result.port = port();
                result.ifindex = below(4);
                if (!rules.empty() && chance(0.7)) {  // one that is near a rule
                        const Rule& rule = rules[below(static_cast<std::uint32_t>(rules.size()))];
                        result.protocol = rule.protocol;
                        result.to = within(rule.prefix);
                        result.port = chance(0.5) ? rule.ports.first : rule.ports.last;
                        result.from = rule.source ? within(*rule.source) : address(result.to.family);
                        result.ifindex = rule.ifindex != 0 ? rule.ifindex : below(4);
                }
                return result;
        }

private:
        static bool clashes(const Rule& a, const Rule& b) {
                if (a.protocol != b.protocol || a.prefix != b.prefix ||
                    a.source.value_or(Prefix{}) != b.source.value_or(Prefix{}) || a.ifindex != b.ifindex) {
                        // A source of length 0 is none.
                        return a.protocol == b.protocol && a.prefix == b.prefix && a.ifindex == b.ifindex &&
                               (!a.source || a.source->length == 0) && (!b.source || b.source->length == 0);
                }
                const bool disjoint = a.ports.last < b.ports.first || b.ports.last < a.ports.first;
                const bool nested =
                        a.ports != b.ports && ((a.ports.first <= b.ports.first && b.ports.last <= a.ports.last) ||
                                               (b.ports.first <= a.ports.first && a.ports.last <= b.ports.last));
                return !disjoint && !nested;
        }

        Address within(const Prefix& prefix) {
                Address result = prefix.address;
                for (unsigned bit = prefix.length; bit < address_bits(result.family); bit++) {
                        if (chance(0.3)) {
                                result.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
                        }
                }
                return result;
        }

        std::mt19937 random_;
};

}  // namespace sockbroker::oracle
