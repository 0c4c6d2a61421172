// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/bench/baselines.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>

#include <chrono>
#include <cstring>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "baselines.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker::bench {

namespace {

template <std::size_t kWords>
struct LpmKey {
        std::uint32_t length;
        std::uint16_t protocol;
        std::uint16_t port;
        std::uint32_t address[kWords];
};

struct LpmValue {
        std::uint32_t slot;
        std::uint32_t length;
};

template <std::size_t kWords>
Result<double> fill(int map, const std::vector<Rule>& rules) {
        std::vector<LpmKey<kWords>> keys;
        std::vector<LpmValue> values;
        for (const Rule& rule : rules) {
                LpmKey<kWords> key{.length = 32U + rule.prefix.length, .protocol = IPPROTO_UDP};
                std::memcpy(key.address, rule.prefix.address.bytes.data(), sizeof key.address);
                const bool any = rule.ports == PortRange{};
                for (std::uint32_t port = rule.ports.first; port <= (any ? rule.ports.first : rule.ports.last);
                     port++) {
                        key.port = any ? std::uint16_t{0} : static_cast<std::uint16_t>(port);  // of a range: each
                        keys.push_back(key);
                        values.push_back({rule.service, rule.prefix.length});
                }
        }
        // A set of rules is of one protocol.
        const std::uint16_t protocol = rules.front().protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        for (LpmKey<kWords>& key : keys) {
                key.protocol = protocol;
        }
        const auto begin = std::chrono::steady_clock::now();
        auto count = static_cast<std::uint32_t>(keys.size());
        if (bpf_map_update_batch(map, keys.data(), values.data(), &count, nullptr) != 0 || count != keys.size()) {
                return fail_errno("cannot fill the trie of two-LPM");
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

struct Baselines::State {
        std::unique_ptr<baselines, void (*)(baselines*)> skeleton{nullptr, baselines__destroy};
        double seconds = 0;
};

Baselines::Baselines(std::unique_ptr<State> state) : state_(std::move(state)) {}
Baselines::~Baselines() = default;

Result<std::unique_ptr<Baselines>> Baselines::load(const std::vector<Rule>& rules,
                                                   const std::vector<OwnedFd>& sockets) {
        auto state = std::make_unique<State>();
        state->skeleton.reset(baselines__open());
        if (!state->skeleton) {
                return fail_errno("cannot open the baseline programs");
        }
        const bool v4 = rules.front().prefix.address.family == Family::kIpv4;
        const auto& maps = state->skeleton->maps;
        bpf_map__set_max_entries(v4 ? maps.trie4 : maps.trie6, static_cast<std::uint32_t>(rules.size() + 1024));
        bpf_map__set_max_entries(maps.bench_sockets, static_cast<std::uint32_t>(sockets.size()));
        if (const int error = baselines__load(state->skeleton.get()); error != 0) {
                return fail(error, "cannot load the baseline programs");
        }
        for (std::uint32_t slot = 0; slot < sockets.size(); slot++) {
                const std::uint64_t value = static_cast<std::uint64_t>(sockets[slot].get());
                if (bpf_map_update_elem(bpf_map__fd(maps.bench_sockets), &slot, &value, BPF_ANY) != 0) {
                        return fail_errno("cannot put a socket into the map of the baselines");
                }
        }
        const auto filled = v4 ? fill<1>(bpf_map__fd(maps.trie4), rules) : fill<4>(bpf_map__fd(maps.trie6), rules);
        if (!filled) {
                return std::unexpected(filled.error());
        }
        state->seconds = *filled;
        return std::unique_ptr<Baselines>(new Baselines(std::move(state)));
}

int Baselines::empty() const {
        return bpf_program__fd(state_->skeleton->progs.empty);
}

int Baselines::floor() const {
        return bpf_program__fd(state_->skeleton->progs.one_socket);
}

int Baselines::two_lpm() const {
        return bpf_program__fd(state_->skeleton->progs.two_lpm);
}

double Baselines::update_seconds() const {
        return state_->seconds;
}

}  // namespace sockbroker::bench
