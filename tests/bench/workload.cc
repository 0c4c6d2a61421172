// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/bench/workload.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace sockbroker::bench {

namespace {

std::vector<unsigned> lengths_of(Family family, Lengths lengths) {
        const bool v4 = family == Family::kIpv4;
        switch (lengths) {
        case Lengths::kHosts:
                return {address_bits(family)};
        case Lengths::kFour:
                return v4 ? std::vector<unsigned>{32, 28, 24, 20} : std::vector<unsigned>{128, 64, 56, 48};
        case Lengths::kMost: {
                std::vector<unsigned> result;
                for (unsigned length = v4 ? 3 : 32; length <= address_bits(family); length += v4            ? 1
                                                                                              : length < 64 ? 2
                                                                                                            : 4) {
                        result.push_back(length);
                }
                return result;
        }
        default:
                break;
        }
        return v4 ? std::vector<unsigned>{32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17}
                  : std::vector<unsigned>{128, 124, 120, 112, 96, 80, 72, 64, 60, 56, 52, 48, 44, 40, 36, 32};
}

bpf_sk_lookup context(const Address& to, std::uint16_t port = kPort) {
        bpf_sk_lookup result{};
        const bool v4 = to.family == Family::kIpv4;
        result.family = v4 ? AF_INET : AF_INET6;
        result.protocol = IPPROTO_UDP;
        std::memcpy(v4 ? &result.local_ip4 : &result.local_ip6[0], to.bytes.data(), v4 ? 4 : 16);
        result.local_port = port;
        result.remote_port = htons(40000);
        return result;
}

}  // namespace

std::size_t Workload::AddressHash::operator()(const Address& address) const {
        std::uint64_t halves[2];
        std::memcpy(halves, address.bytes.data(), sizeof halves);
        return (halves[0] ^ halves[1] * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9 >> 20;
}

std::string to_string(Lengths lengths, Family family) {
        return lengths == Lengths::kHosts   ? "hosts"
               : lengths == Lengths::kPorts ? "ports"
                                            : std::to_string(lengths_of(family, lengths).size()) + " lengths";
}

// Every twentieth port from 2000 on; three of them begin a range.
void Workload::bind_ports() {
        const Address address = masked(random_address(true), 24);
        prefixes_.emplace_back(24, 0).second.insert(address);
        for (std::uint32_t i = 0; i < kPortBindings; i++) {
                const auto first = static_cast<std::uint16_t>(2000 + 20 * i);
                rules_.push_back({.protocol = Protocol::kUdp,
                                  .prefix = {address, 24},
                                  .ports = {first, static_cast<std::uint16_t>(first + (i % 96 == 0 ? 9 : 0))},
                                  .service = 1 + i % case_.services});
        }
}

Workload::Workload(const Case& what) : case_(what) {
        if (what.lengths == Lengths::kPorts) {
                bind_ports();
                return;
        }
        auto lengths = lengths_of(what.family, what.lengths);
        std::sort(lengths.begin(), lengths.end());
        std::uint32_t left = what.bindings;
        for (std::size_t i = 0; i < lengths.size() && left > 0; i++) {
                const bool last = i + 1 == lengths.size();
                // A quarter of the prefixes of this length at most, or all misses of longer ones would be hits of it.
                const unsigned free_bits = lengths[i] - (what.family == Family::kIpv4 ? 1 : 8);
                std::uint32_t count = std::max<std::uint32_t>(1, what.bindings / lengths.size());
                count = last ? left : std::min({left, count, 1U << std::min(free_bits - 2, 30U)});
                // Of the shortest one each, or there would be no misses left.
                count = lengths[i] < 16 ? 1 : count;
                auto& seen = prefixes_.emplace_back(lengths[i], 0).second;
                seen.reserve(count);
                while (seen.size() < count) {
                        const Address address = masked(random_address(true), lengths[i]);
                        if (!seen.insert(address).second) {
                                continue;
                        }
                        Rule rule{.protocol = Protocol::kUdp,
                                  .prefix = {address, static_cast<std::uint8_t>(lengths[i])},
                                  .service = 1 + static_cast<std::uint32_t>(rules_.size()) % what.services};
                        if (random_() % 2 == 0) {
                                rule.ports = {kPort, kPort};
                        }
                        rules_.push_back(rule);
                }
                left -= count;
        }
}

Address Workload::random_address(bool hit) {
        Address result{.family = case_.family};
        const std::uint64_t bits[2] = {random_(), random_()};
        if (case_.family == Family::kIpv6) {
                std::memcpy(result.bytes.data(), bits, 16);
                result.bytes[0] = hit ? 0x20 : 0x30;
                return result;
        }
        std::memcpy(result.bytes.data(), bits, 4);
        result.bytes[0] = static_cast<std::uint8_t>(hit ? result.bytes[0] & 0x7f : result.bytes[0] | 0x80);
        result.bytes[0] = result.bytes[0] == 127 ? 126 : result.bytes[0];
        return result;
}

bpf_sk_lookup Workload::within(const Rule& rule) {
        Address address = random_address(true);
        const Address host_bits = masked(address, rule.prefix.length);
        for (std::size_t i = 0; i < address.bytes.size(); i++) {
                address.bytes[i] = static_cast<std::uint8_t>((address.bytes[i] ^ host_bits.bytes[i]) |
                                                             rule.prefix.address.bytes[i]);
        }
        if (address.family == Family::kIpv4 && rule.prefix.length < 8 && address.bytes[0] == 127) {
                address.bytes[0] = 126;  // such prefixes do not cover loopback
        }
        return context(address, case_.lengths == Lengths::kPorts ? rule.ports.last : kPort);
}

bpf_sk_lookup Workload::hit() {
        return within(rules_[random_() % rules_.size()]);
}

bool Workload::covered(const Address& address) const {
        return std::any_of(prefixes_.begin(), prefixes_.end(),
                           [&](const auto& length) { return length.second.contains(masked(address, length.first)); });
}

bpf_sk_lookup Workload::near_miss() {
        if (case_.lengths == Lengths::kPorts) {  // between two ports
                bpf_sk_lookup packet = hit();
                packet.local_port++;
                return packet;
        }
        Address address = random_address(true);
        while (covered(address)) {
                address = random_address(true);
        }
        return context(address);
}

bpf_sk_lookup Workload::far_miss() {
        return context(random_address(false));
}

bpf_sk_lookup Workload::worst_hit() {
        return within(case_.lengths == Lengths::kPorts ? rules_[rules_.size() / 2 + 1] : rules_.front());
}

}  // namespace sockbroker::bench
