// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is asked in a benchmark: sets of bindings of a given shape and packets that hit or miss them. All bindings lie
// in one half of their address space and all misses in the other. The same seed gives the same set.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <random>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "broker/dataplane/rules.h"

namespace sockbroker::bench {

// kMost: all that leave room for misses, 30 of IPv4 and 33 of IPv6. kPorts: one prefix with many ports.
enum class Lengths : std::uint8_t { kHosts, kFour, kSixteen, kMost, kPorts };

struct Case {
        Family family = Family::kIpv4;
        Lengths lengths = Lengths::kFour;
        std::uint32_t services = 1;
        std::uint32_t bindings = 1;
};

[[nodiscard]] std::string to_string(Lengths lengths, Family family);

inline constexpr std::uint16_t kPort = 443;
inline constexpr std::uint32_t kPortBindings = 288;  // of the one prefix of kPorts; three are ranges

class Workload {
public:
        explicit Workload(const Case& what);

        // Half of the bindings are for kPort, half for any port; no prefix stands twice.
        [[nodiscard]] const std::vector<Rule>& rules() const { return rules_; }
        [[nodiscard]] bpf_sk_lookup hit();
        // In the midst of the bindings, where a trie has to go deep, and far from all of them.
        [[nodiscard]] bpf_sk_lookup near_miss();
        [[nodiscard]] bpf_sk_lookup far_miss();
        // Of the shortest prefix length, which a walk from the longest finds last.
        [[nodiscard]] bpf_sk_lookup worst_hit();

private:
        void bind_ports();
        [[nodiscard]] Address random_address(bool hit);
        [[nodiscard]] bpf_sk_lookup within(const Rule& rule);
        [[nodiscard]] bool covered(const Address& address) const;

        struct AddressHash {
                std::size_t operator()(const Address& address) const;
        };

        Case case_;
        std::mt19937_64 random_{20260101};
        std::vector<Rule> rules_;
        std::vector<std::pair<unsigned, std::unordered_set<Address, AddressHash>>> prefixes_;  // by length
};

}  // namespace sockbroker::bench
