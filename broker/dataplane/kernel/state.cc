// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/state.h"

#include <bpf/bpf.h>

#include <atomic>
#include <cstring>

#include <fmt/format.h>

#include "broker/dataplane/kernel/earlier.h"
#include "broker/dataplane/kernel/registrants.h"
#include "broker/dataplane/kernel/targets.h"

namespace sockbroker {

Result<std::uint32_t> Dataplane::State::take(Recycler& from, const char* what) {
        if (from.wants_grace()) {
                if (auto waited = grace.wait(); !waited) {
                        return std::unexpected(waited.error());
                }
                // What rested before the wait is free, whichever of the three asked.
                free_slots.graced();
                free_records.graced();
                free_services.graced();
        }
        const auto number = from.take();
        if (!number) {
                return fail(EBUSY, fmt::format("no {} is free", what));
        }
        return *number;
}

void Dataplane::State::switch_record(ServiceId id, std::uint32_t record, std::uint64_t newest) {
        sb_service& service = services[id];
        const auto behind = records_behind(std::atomic_ref(service.record).load(), all_records());  // may want memory
        // All protocols and families change in the one store of the record, which was written before. Without the copy
        // of its first slots lookups go by the record, so the copy may be changed around it.
        std::atomic_ref(service.newest).store(0, std::memory_order_release);
        std::atomic_ref(service.record).store(record, std::memory_order_seq_cst);
        std::atomic_ref(service.newest).store(newest, std::memory_order_release);
        for (const auto old : behind) {
                free_records.retire(old);
        }
}

// Both dispatch programs run, and each notes every question in its own map. So only answers are lost whose question
// came before there were rules and which are sent after this.
void Dataplane::State::end_earlier() {
        unit_programs->take_over();
        if (const auto pins = PinDir::open(pin_dir)) {
                forget_earlier(*pins, kernel);
        }
}

// What an earlier broker left, which may have died between any two steps. Whatever is not named starts at rest, since a
// program may still hold it.
Result<void> Dataplane::State::rebuild() {
        const Capacity& capacity = kernel.capacity;
        static_assert(kLastFlowSlot == SB_NEWEST_REMEMBERED - 1 && kLastFlowSlot <= SB_FLOW_SLOT);
        most_sockets = capacity.sockets;
        const std::uint32_t slot_count = slot_entries(capacity);
        const auto vacate = [&](Recycler& recycler, std::uint32_t number) {
                if (kernel.taken_up) {
                        recycler.retire(number);
                } else {
                        recycler.add_free(number);
                }
        };

        free_services.reserve(kernel.service_ids);
        free_slots.reserve(slot_count);
        free_records.reserve(record_entries(capacity));
        names.resize(kernel.service_ids + 1);
        std::vector<bool> record_named(record_entries(capacity));
        for (std::uint32_t id = kernel.service_ids; id > 0; id--) {
                sb_name name{};
                if (kernel.taken_up && bpf_map_lookup_elem(kernel.fd(KernelMap::kNames), &id, &name) != 0) {
                        return fail_errno(fmt::format("cannot read the name of service {}", id));
                }
                names[id].assign(name.text, strnlen(name.text, sizeof name.text));
                if (names[id].empty()) {
                        // Its removal may have stopped half-way.
                        std::atomic_ref(services[id].newest).store(0, std::memory_order_release);
                        std::atomic_ref(services[id].record).store(0, std::memory_order_release);
                        vacate(free_services, id);
                } else {
                        ids.emplace(names[id], id);
                }
                if (services[id].record >= record_named.size()) {
                        return fail(
                                fmt::format("the map services names record {}, which does not exist; run "
                                            "sockbrokerctl unload, then start again",
                                            services[id].record));
                }
                for (const auto record : records_behind(services[id].record, all_records())) {
                        record_named[record] = true;
                }
                // The copy is left out where a switch stopped half-way.
                std::atomic_ref(services[id].newest)
                        .store(newest_of(read_records(services[id].record, all_records())), std::memory_order_release);
        }
        for (std::uint32_t record = static_cast<std::uint32_t>(record_named.size()) - 1; record > 0; record--) {
                if (!record_named[record]) {
                        vacate(free_records, record);
                }
        }

        slot_used.assign(slot_count, false);
        for (std::uint32_t slot = slot_count - 1; slot > 0; slot--) {
                sb_registrant registrant{};
                if (kernel.taken_up) {
                        auto read = read_registrant(kernel.fd(KernelMap::kRegistrants), slot);
                        if (!read) {
                                return std::unexpected(read.error());
                        }
                        registrant = *read;
                }
                if (registrant.service != 0) {
                        if (slots[slot].service != registrant.service) {
                                take_slot(slot, registrant.service);  // of an earlier layout, or half done
                        }
                        slot_used[slot] = true;
                        slots_in_use++;
                } else {
                        leave_slot(slot);
                        // No record, no owner: install() writes the record first and remove() clears it last.
                        if (kernel.taken_up) {
                                bpf_map_delete_elem(kernel.fd(KernelMap::kSockets), &slot);
                        }
                        vacate(free_slots, slot);
                }
        }
        return rebuild_counters();
}

}  // namespace sockbroker
