// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/conflicts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include <fmt/format.h>

namespace sockbroker {

namespace {

// Which binding of which service, and a hash of its protocol and prefix: of a million bindings most pairs are told
// apart without looking at them, which halves the time of a whole load.
struct Reference {
        std::uint64_t hash = 0;
        std::uint32_t service = 0;
        std::uint32_t binding = 0;
};

std::uint64_t hash_of(const Binding& binding) {
        std::array<std::uint64_t, 2> halves{};
        std::memcpy(halves.data(), binding.prefix.address.bytes.data(), sizeof halves);
        std::uint64_t hash = binding.prefix.length * 4U + static_cast<unsigned>(binding.prefix.address.family) * 2U +
                             static_cast<unsigned>(binding.protocol);
        for (const auto half : halves) {
                hash = (hash ^ half) * 0x9e3779b97f4a7c15U;
                hash ^= hash >> 32;
        }
        return hash;
}

bool earlier(Where a, Where b) {
        return std::tie(a.file, a.line) < std::tie(b.file, b.line);
}

class Search {
public:
        explicit Search(const Policy& policy) : policy_(policy) {}

        std::vector<Finding> run() {
                collect();
                for (const auto& reference : order_) {
                        const auto& next = binding(reference);
                        // What is left are the ranges that hold the first port of this one, the narrowest on top.
                        while (!open_.empty() && !reaches(binding(open_.back()), next)) {
                                open_.pop_back();
                        }
                        if (!open_.empty()) {
                                compare(open_.back(), reference);
                        }
                        open_.push_back(reference);
                }
                return std::move(findings_);
        }

private:
        [[nodiscard]] const Binding& binding(Reference reference) const {
                return policy_.services[reference.service].bindings[reference.binding];
        }
        [[nodiscard]] const std::string& name(Reference reference) const {
                return policy_.services[reference.service].name;
        }

        // Equal protocol and prefix side by side, therein by first port, then widest first, then as the text has them.
        void collect() {
                std::size_t count = 0;
                for (const auto& service : policy_.services) {
                        count += service.bindings.size();
                }
                order_.reserve(count);
                for (std::uint32_t s = 0; s < policy_.services.size(); s++) {
                        for (std::uint32_t b = 0; b < policy_.services[s].bindings.size(); b++) {
                                order_.push_back({hash_of(policy_.services[s].bindings[b]), s, b});
                        }
                }
                std::sort(order_.begin(), order_.end(), [this](Reference left, Reference right) {
                        if (left.hash != right.hash) {
                                return left.hash < right.hash;
                        }
                        const auto& a = binding(left);
                        const auto& b = binding(right);
                        if (const auto differ = a.prefix <=> b.prefix; differ != 0) {
                                return differ < 0;
                        }
                        return std::tie(a.protocol, a.ports.first, b.ports.last, a.where.file, a.where.line) <
                               std::tie(b.protocol, b.ports.first, a.ports.last, b.where.file, b.where.line);
                });
        }

        static bool reaches(const Binding& wide, const Binding& next) {
                return wide.protocol == next.protocol && wide.prefix == next.prefix &&
                       wide.ports.last >= next.ports.first;
        }

        void compare(Reference left, Reference right) {
                const bool equal = binding(left).ports == binding(right).ports;
                if (!equal && binding(right).ports.last <= binding(left).ports.last) {
                        return;  // nested
                }
                if (earlier(binding(right).where, binding(left).where)) {
                        std::swap(left, right);
                }
                const auto& first = binding(left);
                const auto& second = binding(right);
                if (first.bare && second.bare && first.prefix.address.family == Family::kIpv6) {
                        return;  // said of its IPv4 half
                }
                const auto place = policy_.place(first.where);
                if (!equal) {
                        add(second.where, Severity::kError,
                            fmt::format("{} overlaps {} of service {} at {} and neither range holds the other, make "
                                        "them nested or disjoint",
                                        written(second), written(first), name(left), place));
                } else if (left.service != right.service) {
                        add(second.where, Severity::kError,
                            fmt::format("{} is claimed by service {} here and by service {} at {}, remove one",
                                        written(second), name(right), name(left), place));
                } else {
                        add(second.where, Severity::kWarning,
                            fmt::format("{} stands twice in service {}, first at {}", written(second), name(right),
                                        place));
                }
        }

        void add(Where where, Severity severity, std::string message) {
                findings_.push_back({where, severity, std::move(message)});
        }

        const Policy& policy_;
        std::vector<Reference> order_;
        std::vector<Reference> open_;
        std::vector<Finding> findings_;
};

}  // namespace

std::string written(const Binding& binding) {
        const auto* key = binding.protocol == Protocol::kTcp ? "ListenStream" : "ListenDatagram";
        const auto ports = binding.ports.to_string();
        if (binding.bare) {
                return fmt::format("{}={}", key, ports);
        }
        const auto& prefix = binding.prefix;
        return prefix.address.family == Family::kIpv4
                       ? fmt::format("{}={}:{}", key, prefix.to_string(), ports)
                       : fmt::format("{}=[{}]/{}:{}", key, prefix.address.to_string(), prefix.length, ports);
}

std::vector<Finding> find_conflicts(const Policy& policy) {
        return Search(policy).run();
}

}  // namespace sockbroker
