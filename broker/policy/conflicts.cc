// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/conflicts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "broker/base/huge_pages.h"

namespace sockbroker {

namespace {

// Which of a million hashes are not the only one of their value: two bits for a cell of each, and several cells for
// each hash, so that few are suspected wrongly. As in a Bloom filter no two that are equal are missed.
class Repeated {
public:
        explicit Repeated(std::size_t hashes)
                : shift_(64 - static_cast<unsigned>(
                                      std::bit_width(std::max<std::size_t>(hashes * kCellsForEach, kCellsOfWord)))),
                  words_((std::size_t{1} << (64 - shift_)) / kCellsOfWord) {
                std::ranges::fill(words_, 0);
        }

        void fetch(std::uint64_t hash) const { __builtin_prefetch(&words_[word_of(hash)], 1); }
        void add(std::uint64_t hash) {
                auto& word = words_[word_of(hash)];
                const std::uint64_t once = std::uint64_t{1} << bit_of(hash);
                word |= (word & once) << 1 | once;
        }
        [[nodiscard]] bool contains(std::uint64_t hash) const {
                return (words_[word_of(hash)] >> bit_of(hash) & 2) != 0;
        }

private:
        static constexpr std::size_t kCellsForEach = 16;
        static constexpr std::size_t kCellsOfWord = 32;

        [[nodiscard]] std::size_t word_of(std::uint64_t hash) const { return (hash >> shift_) / kCellsOfWord; }
        [[nodiscard]] unsigned bit_of(std::uint64_t hash) const {
                return static_cast<unsigned>((hash >> shift_) % kCellsOfWord * 2);
        }

        unsigned shift_;
        Scratch<std::uint64_t> words_;
};

// Which binding of which service, with which source and interface, and a hash of all but the ports: most pairs are told
// apart without looking at them.
struct Reference {
        std::uint64_t hash = 0;
        std::uint32_t service = 0;
        std::uint32_t binding = 0;
        std::uint32_t client = 0;
};

std::uint64_t mixed(std::uint64_t hash, const Prefix& prefix) {
        std::array<std::uint64_t, 2> halves{};
        std::memcpy(halves.data(), prefix.address.bytes.data(), sizeof halves);
        hash = hash * 256 + prefix.length;
        for (const auto half : halves) {
                hash = (hash ^ half) * 0x9e3779b97f4a7c15U;
                hash ^= hash >> 32;
        }
        return hash;
}

// A source that covers everybody is the same as none: then there is nothing in it.
Prefix source_of(const ClientFilter& client) {
        return client.source != nullptr && client.source->length != 0 ? *client.source : Prefix{};
}

std::string_view interface_of(const ClientFilter& client) {
        return client.interface != nullptr ? std::string_view(client.interface->value) : std::string_view{};
}

std::uint64_t hash_of(const Binding& binding, const ClientFilter& client) {
        std::uint64_t hash = mixed(
                static_cast<unsigned>(binding.prefix.address.family) * 2U + static_cast<unsigned>(binding.protocol),
                binding.prefix);
        if (client.source != nullptr && client.source->length != 0) {
                hash = mixed(hash, *client.source);
        }
        return client.interface == nullptr ? hash : hash ^ std::hash<std::string_view>{}(client.interface->value);
}

class Search {
        static constexpr std::size_t kAhead = 32;  // cells are fetched so long before their turn

public:
        Search(const Policy& policy, Findings& findings) : policy_(policy), findings_(findings) {}

        void run() {
                collect();
                for (const auto& reference : order_) {
                        // What is left are the ranges that hold the first port of this one, the narrowest on top.
                        while (!open_.empty() && !reaches(open_.back(), reference)) {
                                open_.pop_back();
                        }
                        if (!open_.empty()) {
                                compare(open_.back(), reference);
                        }
                        open_.push_back(reference);
                }
        }

private:
        [[nodiscard]] const Binding& binding(Reference reference) const {
                return policy_.services[reference.service].bindings[reference.binding];
        }
        [[nodiscard]] ClientFilter client(Reference reference) const {
                return client_filter_at(policy_.services[reference.service], binding(reference).prefix.address.family,
                                        reference.client);
        }
        [[nodiscard]] const std::string& name(Reference reference) const {
                return policy_.services[reference.service].name;
        }

        // Equal protocol, prefix, source and interface side by side, therein by first port, then widest first, then as
        // the text has them.
        // The upper bits of the hash, which is as good as random, say into which bucket each belongs: what is left to
        // sort are a few together.
        void collect() {
                const auto all = suspects();
                const int bits = std::clamp(static_cast<int>(std::bit_width(all.size())) - 3, 1, 20);
                const auto bucket = [&](Reference one) { return static_cast<std::size_t>(one.hash >> (64 - bits)); };
                std::vector<std::uint32_t> next((std::size_t{1} << bits) + 1);  // free place in each bucket
                for (const auto one : all) {
                        next[bucket(one) + 1]++;
                }
                std::partial_sum(next.begin(), next.end(), next.begin());
                order_.resize(all.size());
                for (const auto one : all) {
                        order_[next[bucket(one)]++] = one;
                }
                auto first = order_.begin();
                for (const auto end : next) {
                        const auto last = order_.begin() + static_cast<std::ptrdiff_t>(end);
                        std::sort(first, last, [this](Reference a, Reference b) { return is_before(a, b); });
                        first = last;
                }
        }

        // Those whose hash is not the only one of its value: mostly few.
        [[nodiscard]] std::vector<Reference> suspects() const {
                std::size_t count = 0;
                for (const auto& service : policy_.services) {
                        for (const auto& binding : service.bindings) {
                                count += count_client_filters(service, binding.prefix.address.family);
                        }
                }
                Scratch<std::uint64_t> hashes;
                hashes.reserve(count);
                for_each([&](const Reference& one) { hashes.push_back(one.hash); });
                Repeated repeated(count);
                const auto fetch_after = [&](std::size_t n) {
                        if (n + kAhead < hashes.size()) {
                                repeated.fetch(hashes[n + kAhead]);
                        }
                };
                for (std::size_t n = 0; n < hashes.size(); n++) {
                        fetch_after(n);
                        repeated.add(hashes[n]);
                }
                std::vector<Reference> found;
                std::size_t number = 0;
                for_each([&](const Reference& one) {
                        fetch_after(number++);
                        if (repeated.contains(one.hash)) {
                                found.push_back(one);
                        }
                });
                return found;
        }

        template <class Take>
        void for_each(Take take) const {
                for (std::uint32_t s = 0; s < policy_.services.size(); s++) {
                        const auto& service = policy_.services[s];
                        const bool any_client = any_source(service) && service.interfaces.empty();
                        for (std::uint32_t b = 0; b < service.bindings.size(); b++) {
                                const auto& binding = service.bindings[b];
                                if (any_client) {
                                        take(Reference{hash_of(binding, {}), s, b, 0});
                                        continue;
                                }
                                const auto family = binding.prefix.address.family;
                                const auto matches = static_cast<std::uint32_t>(count_client_filters(service, family));
                                for (std::uint32_t m = 0; m < matches; m++) {
                                        take(Reference{hash_of(binding, client_filter_at(service, family, m)), s, b,
                                                       m});
                                }
                        }
                }
        }

        [[nodiscard]] bool is_before(Reference left, Reference right) const {
                if (left.hash != right.hash) {
                        return left.hash < right.hash;
                }
                const auto& a = binding(left);
                const auto& b = binding(right);
                if (const auto differ = a.prefix <=> b.prefix; differ != 0) {
                        return differ < 0;
                }
                const auto client_a = client(left);
                const auto client_b = client(right);
                if (const auto differ = source_of(client_a) <=> source_of(client_b); differ != 0) {
                        return differ < 0;
                }
                if (const auto differ = interface_of(client_a) <=> interface_of(client_b); differ != 0) {
                        return differ < 0;
                }
                return std::tie(a.protocol, a.ports.first, b.ports.last, a.where.file, a.where.line) <
                       std::tie(b.protocol, b.ports.first, a.ports.last, b.where.file, b.where.line);
        }

        [[nodiscard]] bool reaches(Reference left, Reference right) const {
                const auto& wide = binding(left);
                const auto& next = binding(right);
                return left.hash == right.hash && wide.protocol == next.protocol && wide.prefix == next.prefix &&
                       source_of(client(left)) == source_of(client(right)) &&
                       interface_of(client(left)) == interface_of(client(right)) && wide.ports.last >= next.ports.first;
        }

        void compare(Reference left, Reference right) {
                const bool equal = binding(left).ports == binding(right).ports;
                if (!equal && binding(right).ports.last <= binding(left).ports.last) {
                        return;  // nested
                }
                if (binding(right).where < binding(left).where) {
                        std::swap(left, right);
                }
                const auto& first = binding(left);
                const auto& second = binding(right);
                // Once for the halves of ports alone, and whatever the number of sources and interfaces.
                if ((is_one_of_many(left) || is_one_of_many(right)) &&
                    !told_.emplace(first.where.file, first.where.line, second.where.file, second.where.line).second) {
                        return;
                }
                const bool twice = equal && left.service == right.service;
                findings_.add(second.where, twice ? Severity::kWarning : Severity::kError, [&] {
                        const auto location = policy_.location(first.where);
                        const auto later = written(second, client(right));
                        if (!equal) {
                                return fmt::format(
                                        "{} overlaps {} of service {} at {} and neither range holds the "
                                        "other, make them nested or disjoint",
                                        later, written(first, client(left)), name(left), location);
                        }
                        if (!twice) {
                                return fmt::format(
                                        "{} is claimed by service {} here and by service {} at {}, remove "
                                        "one",
                                        later, name(right), name(left), location);
                        }
                        return fmt::format("{} stands twice in service {}, first at {}", later, name(right), location);
                });
        }

        [[nodiscard]] bool is_one_of_many(Reference reference) const {
                const auto& one = binding(reference);
                return one.bare ||
                       count_client_filters(policy_.services[reference.service], one.prefix.address.family) > 1;
        }

        const Policy& policy_;
        std::vector<Reference> order_;
        std::vector<Reference> open_;
        std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>> told_;  // places of the two
        Findings& findings_;
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

std::string written(const Binding& binding, const ClientFilter& client) {
        auto text = written(binding);
        if (client.source != nullptr) {
                text += " from " + client.source->to_string();
        }
        if (client.interface != nullptr) {
                text += " on " + client.interface->value;
        }
        return text;
}

// FNV-1a, 64 bits: whoever writes the policy is trusted, so that nobody looks for two that collide.
std::uint64_t identity_of(const Service& service, const Binding& binding, const ClientFilter& client) {
        std::uint64_t hash = 0xcbf29ce484222325U;
        for (const char c : fmt::format("{}\n{}\n{}", service.name, to_string(binding.prefix.address.family),
                                        written(binding, client))) {
                hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
        }
        return hash == 0 ? 1 : hash;
}

void find_conflicts(const Policy& policy, Findings& findings) {
        Search(policy, findings).run();
}

}  // namespace sockbroker
