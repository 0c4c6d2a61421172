// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Flows of UDP that stay with their socket, from the broker's side: which generation a slot has, how many flows each
// socket still has, and that what is too old is forgotten. The dispatch program does all else (bpf/flows.inc).
#include <atomic>
#include <ctime>

#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/mapping.h"
#include "broker/dataplane/kernel/state.h"

namespace sockbroker {

namespace {

std::uint32_t now() {
        timespec time{};
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
        const auto nanoseconds =
                static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
        return static_cast<std::uint32_t>(nanoseconds >> SB_FLOW_CLOCK);
}

struct Entry {
        explicit Entry(std::uint64_t bits, std::uint32_t time)
                : slot(bits & SB_FLOW_SLOT),
                  generation(bits >> SB_FLOW_GENERATION_SHIFT & SB_FLOW_GENERATIONS),
                  age((time - static_cast<std::uint32_t>(bits >> SB_FLOW_TIME_SHIFT)) & SB_FLOW_TIMES),
                  is_protected((bits & SB_FLOW_PROTECTED) != 0) {}

        std::uint32_t slot;
        std::uint32_t generation;
        std::uint32_t age;
        bool is_protected;
};

Result<Mapping<sb_flow_line>> map_flows(const KernelObjects& kernel) {
        return Mapping<sb_flow_line>::create(kernel.fd(KernelMap::kFlows), SB_FLOW_LINES, "flows");
}

}  // namespace

void Dataplane::State::take_slot(Slot slot, ServiceId service) {
        forget_flows(slot);
        std::atomic_ref(slots[slot].service).store(service, std::memory_order_release);
}

void Dataplane::State::leave_slot(Slot slot) {
        std::atomic_ref(slots[slot].service).store(0, std::memory_order_release);
}

void Dataplane::State::forget_flows(Slot slot) {
        std::atomic_ref(slots[slot].generation).fetch_add(1, std::memory_order_release);
}

std::vector<std::uint32_t> Dataplane::flows() const {
        const State& state = *state_;
        std::vector<std::uint32_t> result(state.slot_used.size());
        const auto lines = map_flows(state.kernel);
        if (!lines) {
                return result;
        }
        const std::uint32_t time = now();
        for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                for (auto& place : (*lines)[line].entry) {
                        const auto bits = std::atomic_ref(place).load(std::memory_order_relaxed);
                        if (bits == 0) {
                                continue;
                        }
                        const Entry entry(bits, time);
                        if (entry.is_protected && entry.age <= SB_FLOW_IDLE && entry.slot < result.size() &&
                            state.slots[entry.slot].service != 0 &&
                            (state.slots[entry.slot].generation & SB_FLOW_GENERATIONS) == entry.generation) {
                                result[entry.slot]++;
                        }
                }
        }
        return result;
}

void Dataplane::sweep_flows() {
        const auto lines = map_flows(state_->kernel);
        if (!lines) {
                return;
        }
        const std::uint32_t time = now();
        for (std::uint32_t line = 0; line < SB_FLOW_LINES; line++) {
                for (auto& place : (*lines)[line].entry) {
                        auto bits = std::atomic_ref(place).load(std::memory_order_relaxed);
                        // The program may refresh it meanwhile: then it stays.
                        if (bits != 0 && Entry(bits, time).age > SB_FLOW_IDLE) {
                                (void)std::atomic_ref(place).compare_exchange_strong(bits, 0);
                        }
                }
        }
}

}  // namespace sockbroker
