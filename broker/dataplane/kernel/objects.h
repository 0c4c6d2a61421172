// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The program, its maps and its link as kernel objects: made and pinned, or found and taken up. Knows nothing of what
// the maps mean beyond magic, layout and sizes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

// In the order in which they are pinned. The link is pinned last: a directory without it was left half-made.
enum class KernelMap : std::uint8_t {
        kHeader,
        kArena,
        kTables,
        kServices,
        kRecords,
        kCounters,
        kSockets,
        kRegistrants,
        kNames,
        kBindingCounters,
        kCounted,
        kSlots,
        kFlows,
        kReplies,
        kQuestions,
        kAnswered,
        kUnits,
};
inline constexpr std::size_t kMaps = 17;
inline constexpr std::array<const char*, kMaps> kMapPins{
        "meta",    "arena",       "tables",    "services",         "records", "counters",
        "sockets", "registrants", "names",     "binding_counters", "counted", "slots",
        "flows",   "replies",     "questions", "answered",         "units"};

// Those of a skeleton of the dispatch program or of the one that explains, in the order of KernelMap.
template <class SkeletonMaps>
[[nodiscard]] auto in_order(const SkeletonMaps& maps) {
        return std::array{maps.header,   maps.arena,   maps.tables,      maps.services, maps.records,
                          maps.counters, maps.sockets, maps.registrants, maps.names,    maps.binding_counters,
                          maps.counted,  maps.slots,   maps.flows,       maps.replies,  maps.questions,
                          maps.answered, maps.units};
}

inline constexpr const char* kProgramPin = "program";
inline constexpr const char* kProbePin = "probe";
inline constexpr const char* kMigrationPin = "migrate";
inline constexpr const char* kLinkPin = "link";

// Places that are there beyond the capacity, so that graces are rare under many registrations.
inline constexpr std::uint32_t kSpareRecords = 1024;
[[nodiscard]] constexpr std::uint32_t spare_slots(std::uint32_t sockets) {
        return sockets < 1024 ? sockets : 1024;
}

// Slots begin at 1.
[[nodiscard]] constexpr std::uint32_t slot_entries(const Capacity& capacity) {
        return capacity.sockets + spare_slots(capacity.sockets) + 1;
}

// Twice as many ids as services: a reload may exchange them all, and the old ones are in the rules until its switch.
[[nodiscard]] constexpr std::uint32_t service_ids(std::uint32_t services) {
        return 2 * services;
}

// One for each service, and the chains of those that share: five sockets or more in two families, 15 in a record.
[[nodiscard]] constexpr std::uint32_t record_entries(const Capacity& capacity) {
        return 1 + capacity.services + 2 * (capacity.sockets / 5) + kSpareRecords;
}

// Twice as many counters as bindings that may have one: a reload may exchange them all, and the old ones count until
// then.
[[nodiscard]] constexpr std::uint32_t counter_entries(std::uint32_t accounted) {
        return 2 * accounted + 1;
}

struct KernelObjects {
        std::array<OwnedFd, kMaps> maps;
        OwnedFd probe;      // the program that asks about one slot, never attached
        OwnedFd migration;  // the program that clients attach to their listeners
        bool taken_up = false;
        Capacity capacity;
        std::uint32_t service_ids = 0;     // as the maps have them; an earlier version made no spare ones
        std::uint32_t lines = 0;           // arena lines of one generation
        OwnedFd earlier_link;              // of an earlier layout, whose rules are in force until this one has some
        std::uint32_t earlier_layout = 0;  // whose state was taken along just now; 0: none was
        std::string not_grown;             // why the maps were not made larger, although that was asked

        [[nodiscard]] int fd(KernelMap map) const { return maps[static_cast<std::size_t>(map)].get(); }
};

[[nodiscard]] Result<KernelObjects> load_kernel_objects(const PinDir& pins, const Capacity& capacity);
[[nodiscard]] Result<OwnedFd> open_pinned_link(const std::string& pin_dir, const char* name = kLinkPin);
// Detaches the links, that of an earlier layout too (-1: none), and unpins everything. Somebody may have removed the
// directory.
[[nodiscard]] Result<void> unload_kernel_objects(const std::string& pin_dir, int link, int earlier_link);

}  // namespace sockbroker
