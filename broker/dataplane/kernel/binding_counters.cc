// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Counters of single bindings. The kernel keeps beside each the hash of what it is of, so that it is found again after
// a reload and after a restart. One is given to another binding only when the policy in force has the old one no more,
// and starts from 0.
#include <bpf/bpf.h>

#include <unordered_set>

#include <fmt/format.h>

#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/state.h"

namespace sockbroker {

Result<void> Dataplane::State::rebuild_counters() {
        counted.assign(counter_entries(kernel.capacity.accounted), 0);
        for (std::uint32_t index = 1; kernel.taken_up && index < counted.size(); index++) {
                if (bpf_map_lookup_elem(kernel.fd(KernelMap::kCounted), &index, &counted[index]) != 0) {
                        return fail_errno(fmt::format("cannot read whose counter {} is", index));
                }
                if (counted[index] != 0) {
                        counter_of[counted[index]] = index;
                }
        }
        return {};
}

Result<std::vector<std::uint32_t>> Dataplane::assign_counters(std::span<const std::uint64_t> bindings) {
        State& state = *state_;
        const std::unordered_set<std::uint64_t> wanted(bindings.begin(), bindings.end());
        if (wanted.size() > state.kernel.capacity.accounted) {
                return fail(ENOSPC,
                            fmt::format("cannot count for {} bindings each: the kernel's maps were made for {}; "
                                        "raise MaxAccountedBindings= in sockbrokerd.conf and restart sockbrokerd",
                                        wanted.size(), state.kernel.capacity.accounted));
        }
        if (!wanted.empty() && state.idle_generation_rests) {  // a program may still count by rules of the past
                if (auto waited = state.grace.wait(); !waited) {
                        return std::unexpected(waited.error());
                }
                state.idle_generation_rests = false;
        }
        const std::vector<sb_binding_counter> zero(static_cast<std::size_t>(state.cpus));
        std::vector<std::uint32_t> result;
        result.reserve(bindings.size());
        std::uint32_t free = 1;
        for (const std::uint64_t binding : bindings) {
                if (const auto known = state.counter_of.find(binding); known != state.counter_of.end()) {
                        result.push_back(known->second);
                        continue;
                }
                // At most half of the places are those of the policy in force, and at most half are wanted.
                while (free < state.counted.size() && state.counted[free] != 0) {
                        free++;
                }
                if (free == state.counted.size()) {
                        return fail(ENOSPC, "no counter for a binding is free");
                }
                if (bpf_map_update_elem(state.kernel.fd(KernelMap::kBindingCounters), &free, zero.data(), BPF_ANY) !=
                            0 ||
                    bpf_map_update_elem(state.kernel.fd(KernelMap::kCounted), &free, &binding, BPF_ANY) != 0) {
                        return fail_errno("cannot clear the counter of a binding");
                }
                state.counted[free] = binding;
                state.counter_of[binding] = free;
                result.push_back(free);
        }
        return result;
}

void Dataplane::keep_counters(std::span<const std::uint32_t> kept) {
        State& state = *state_;
        std::vector<bool> keep(state.counted.size());
        for (const auto index : kept) {
                keep[index] = true;
        }
        constexpr std::uint64_t kNobody = 0;
        for (std::uint32_t index = 1; index < state.counted.size(); index++) {
                if (state.counted[index] != 0 && !keep[index]) {
                        state.counter_of.erase(state.counted[index]);
                        state.counted[index] = 0;
                        // Cannot fail for an index within an array.
                        (void)bpf_map_update_elem(state.kernel.fd(KernelMap::kCounted), &index, &kNobody, BPF_ANY);
                }
        }
}

BindingCounters Dataplane::binding_counters(std::uint64_t binding) const {
        BindingCounters sum;
        std::vector<sb_binding_counter> each(static_cast<std::size_t>(state_->cpus));
        const auto known = state_->counter_of.find(binding);
        if (known == state_->counter_of.end() ||
            bpf_map_lookup_elem(state_->kernel.fd(KernelMap::kBindingCounters), &known->second, each.data()) != 0) {
                return sum;
        }
        for (const sb_binding_counter& cpu : each) {
                sum.lookups += cpu.lookups;
                sum.no_socket += cpu.no_socket;
        }
        return sum;
}

}  // namespace sockbroker
