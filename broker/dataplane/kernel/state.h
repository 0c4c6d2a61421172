// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What class Dataplane keeps in this process beside the kernel's maps: which slots, records and ids are taken, and what
// may not be written yet. All of it can be rebuilt from the maps.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "bpf/layout.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/copier.h"
#include "broker/dataplane/kernel/explainer.h"
#include "broker/dataplane/kernel/grace.h"
#include "broker/dataplane/kernel/mapping.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/recycler.h"
#include "broker/dataplane/kernel/unit_programs.h"

namespace sockbroker {

struct Dataplane::State {
        KernelObjects kernel;
        // For unload(): a broker that runs may open no pin any more, see sandbox/broker.profile.
        std::string pin_dir;
        OwnedFd link;
        OwnedFd staging;  // sockets on their way into a slot
        SocketCopier copier;
        Explainer explainer;
        std::unique_ptr<UnitPrograms> unit_programs;
        SocketCopier parker;  // within the staging map
        Parking parking{kStagingEntries, kParkedEntries};
        Grace grace;
        Mapping<sb_header> header;
        Mapping<sb_service> services;
        Mapping<sb_record> records;
        Mapping<sb_slot> slots;
        std::vector<std::string> names;  // by id
        std::map<std::string, ServiceId, std::less<>> ids;
        std::vector<bool> slot_used;
        std::uint32_t slots_in_use = 0;
        std::uint32_t most_sockets = 0;  // see limit_sockets()
        Recycler free_slots{kLastFlowSlot};
        Recycler free_records;
        Recycler free_services;
        bool idle_generation_rests = false;  // a program may still read the half that is written next
        int cpus = 1;
        std::vector<std::uint64_t> counted;  // by index of a binding's counter: whose it is; 0: nobody's
        std::unordered_map<std::uint64_t, std::uint32_t> counter_of;

        [[nodiscard]] Result<std::uint32_t> take(Recycler& from, const char* what);
        [[nodiscard]] Result<void> rebuild();
        [[nodiscard]] bool valid(ServiceId id) const { return id != 0 && id < names.size() && !names[id].empty(); }
        [[nodiscard]] Result<void> rebuild_counters();
        [[nodiscard]] std::span<sb_record> all_records() const {
                return {records.data(), record_entries(kernel.capacity)};
        }
        // A socket of this service comes into the slot; what flows remember of the one before does not count for it.
        void take_slot(Slot slot, ServiceId service);
        void leave_slot(Slot slot);
        // Flows that were served by the socket in the slot are new ones from now on.
        void forget_flows(Slot slot);
        // There are rules of this layout: ends the dispatch of the earlier one, and the answers by what it has noted.
        void end_earlier();
        void switch_record(ServiceId id, std::uint32_t record, std::uint64_t newest);
};

}  // namespace sockbroker
