// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/earlier.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <vector>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/copy.h"
#include "broker/dataplane/kernel/link.h"

namespace sockbroker {

namespace {

// How layouts before this one kept whose a socket is; the other maps that are carried over have not changed since.
struct Layout {
        std::uint32_t number;
        std::uint32_t header_bytes;
        std::uint32_t registrant_bytes;
        std::uint32_t common_bytes;  // from the start, as in sb_registrant
        std::uint32_t unit;          // offset of the unit's name
};
constexpr std::array kEarlier{
        Layout{3, 40, 312, offsetof(sb_registrant, registered_usec), 56},
        Layout{4, 40, 328, offsetof(sb_registrant, hold_until_usec), 72},
        Layout{5, 40, 352, offsetof(sb_registrant, unit), 96},
        Layout{6, sizeof(sb_header), sizeof(sb_registrant), offsetof(sb_registrant, unit),
               offsetof(sb_registrant, unit)},
        Layout{7, sizeof(sb_header), sizeof(sb_registrant), offsetof(sb_registrant, unit),
               offsetof(sb_registrant, unit)},
        Layout{8, sizeof(sb_header), sizeof(sb_registrant), offsetof(sb_registrant, unit),
               offsetof(sb_registrant, unit)},
        Layout{9, sizeof(sb_header), sizeof(sb_registrant), offsetof(sb_registrant, unit),
               offsetof(sb_registrant, unit)},
};

const Layout* find_layout(std::uint32_t number) {
        const auto* const found = std::ranges::find(kEarlier, number, &Layout::number);
        return found == kEarlier.end() ? nullptr : found;
}

struct Carried {
        KernelMap map;
        bpf_map_type type;
        std::uint32_t bytes;      // 0: as the layout says, see bytes_of()
        std::uint32_t since = 0;  // the layout that had it first
};
constexpr std::uint32_t kFlowsSince = 6;  // and in the same form
constexpr std::uint32_t kUnitsSince = 7;
constexpr std::array kCarried{
        Carried{KernelMap::kHeader, BPF_MAP_TYPE_ARRAY, 0},
        Carried{KernelMap::kServices, BPF_MAP_TYPE_ARRAY, sizeof(sb_service)},
        Carried{KernelMap::kRecords, BPF_MAP_TYPE_ARRAY, sizeof(sb_record)},
        Carried{KernelMap::kNames, BPF_MAP_TYPE_ARRAY, sizeof(sb_name)},
        Carried{KernelMap::kRegistrants, BPF_MAP_TYPE_ARRAY, 0},
        Carried{KernelMap::kCounters, BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(sb_counters)},
        Carried{KernelMap::kBindingCounters, BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(sb_binding_counter)},
        Carried{KernelMap::kCounted, BPF_MAP_TYPE_ARRAY, sizeof(std::uint64_t)},
        Carried{KernelMap::kSockets, BPF_MAP_TYPE_SOCKMAP, sizeof(std::uint64_t)},
        Carried{KernelMap::kSlots, BPF_MAP_TYPE_ARRAY, sizeof(sb_slot), kFlowsSince},
        Carried{KernelMap::kFlows, BPF_MAP_TYPE_ARRAY, sizeof(sb_flow_line), kFlowsSince},
        Carried{KernelMap::kUnits, BPF_MAP_TYPE_CGROUP_STORAGE, sizeof(sb_unit), kUnitsSince},
};

std::uint32_t bytes_of(const Carried& carried, const Layout& layout) {
        if (carried.bytes != 0) {
                return carried.bytes;
        }
        return carried.map == KernelMap::kHeader ? layout.header_bytes : layout.registrant_bytes;
}

const char* pin_of(KernelMap map) {
        return kMapPins[static_cast<std::size_t>(map)];
}

std::string next(const char* name) {
        return std::string("next_") + name;
}

std::int64_t now_usec(clockid_t clock) {
        timespec now{};
        clock_gettime(clock, &now);
        return now.tv_sec * std::int64_t{1'000'000} + now.tv_nsec / 1000;
}

sb_registrant convert(const Layout& layout, const char* bytes) {
        sb_registrant result{};
        std::memcpy(&result, bytes, layout.common_bytes);
        std::memcpy(result.unit, bytes + layout.unit, sizeof result.unit);
        result.unused = 0;
        if (result.service != 0 && result.registered_usec == 0) {
                // Only the other clock was kept. A registration in the future would outlive every unit.
                const auto age = std::max<std::int64_t>(now_usec(CLOCK_REALTIME) - result.since_usec, 0);
                result.registered_usec = std::max<std::int64_t>(now_usec(CLOCK_MONOTONIC) - age, 1);
        }
        return result;
}

Result<void> copy_registrants(const EarlierState& before, const KernelObjects& after) {
        const Layout& layout = *find_layout(before.layout);
        const auto entries = map_entries(before.fd(KernelMap::kRegistrants));
        if (!entries) {
                return std::unexpected(entries.error());
        }
        std::vector<std::uint64_t> bytes(layout.registrant_bytes / 8);
        for (std::uint32_t slot = 0; slot < *entries; slot++) {
                if (bpf_map_lookup_elem(before.fd(KernelMap::kRegistrants), &slot, bytes.data()) != 0) {
                        return fail_errno(fmt::format("cannot read the record of slot {}", slot));
                }
                const auto converted = convert(layout, reinterpret_cast<const char*>(bytes.data()));
                if (bpf_map_update_elem(after.fd(KernelMap::kRegistrants), &slot, &converted, BPF_ANY) != 0) {
                        return fail_errno(fmt::format("cannot write the record of slot {}", slot));
                }
        }
        return {};
}

}  // namespace

bool is_earlier_layout(std::uint32_t layout) {
        return find_layout(layout) != nullptr;
}

Result<EarlierState> open_earlier(const PinDir& pins, std::uint32_t layout) {
        EarlierState result;
        result.layout = layout;
        for (const Carried& carried : kCarried) {
                if (layout < carried.since) {
                        continue;
                }
                const char* name = pin_of(carried.map);
                auto fd = pins.get(name);
                if (!fd) {
                        return std::unexpected(fd.error());
                }
                bpf_map_info info{};
                std::uint32_t length = sizeof info;
                if (bpf_obj_get_info_by_fd(fd->get(), &info, &length) != 0 || info.type != carried.type ||
                    info.value_size != bytes_of(carried, *find_layout(layout)) ||
                    (carried.map == KernelMap::kFlows && info.max_entries != SB_FLOW_LINES)) {
                        return fail(
                                fmt::format("{} is of another type or size than layout {} says; dispatch goes on as it "
                                            "is; to change over run sockbrokerctl unload, then start again",
                                            pins.path_of(name), layout));
                }
                if (carried.map == KernelMap::kServices) {
                        result.service_ids = info.max_entries - 1;
                }
                if (carried.map == KernelMap::kCounted) {
                        result.capacity.accounted = (info.max_entries - 1) / 2;
                }
                result.maps[static_cast<std::size_t>(carried.map)] = std::move(*fd);
        }
        sb_header header{};
        const std::uint32_t key = 0;
        if (bpf_map_lookup_elem(result.fd(KernelMap::kHeader), &key, &header) != 0) {
                return fail_errno(fmt::format("cannot read {}", pins.path_of(pin_of(KernelMap::kHeader))));
        }
        result.capacity.bindings = header.bindings;
        result.capacity.services = header.services;
        result.capacity.sockets = header.sockets;
        result.generation = header.generation;
        result.secrets = {header.secret, header.flow_secret[0], header.flow_secret[1]};
        return result;
}

Result<void> copy_earlier(const EarlierState& before, const KernelObjects& after) {
        Result<void> done;
        for (const auto map : {KernelMap::kServices, KernelMap::kRecords, KernelMap::kNames, KernelMap::kCounters,
                               KernelMap::kBindingCounters, KernelMap::kCounted}) {
                done = done ? copy_array(before.fd(map), after.fd(map), pin_of(map)) : done;
        }
        if (done && before.layout >= kFlowsSince) {
                done = copy_array(before.fd(KernelMap::kSlots), after.fd(KernelMap::kSlots), pin_of(KernelMap::kSlots));
        }
        done = done ? copy_registrants(before, after) : done;
        return done ? copy_sockets(before.fd(KernelMap::kSockets), after.fd(KernelMap::kSockets)) : done;
}

Result<void> pin_beside(const PinDir& pins, const EarlierState& before, const KernelObjects& objects, int program,
                        int link) {
        // One of a move before this, whose rules are in force still: the link that is given has none.
        const auto earlier = pins.get(kEarlierLinkPin);
        const auto attached = earlier ? check_link(pins, earlier->get()) : Result<bool>(false);
        Result<void> done;
        if (!attached || !*attached || before.generation != 0) {
                done = pins.replace(kEarlierLinkPin, link);
        }
        for (std::size_t i = 0; i < kMaps && done; i++) {
                done = pins.pin(next(kMapPins[i]).c_str(), objects.maps[i].get());
        }
        done = done ? pins.pin(next(kProgramPin).c_str(), program) : done;
        if (!done) {
                return done;
        }
        const auto fresh = attach(program);
        if (!fresh) {
                return std::unexpected(fresh.error());
        }
        done = pins.pin(next(kLinkPin).c_str(), fresh->get());
        // The header is the first to take its name: see settle_move().
        const char* header = pin_of(KernelMap::kHeader);
        return done ? pins.rename(next(header).c_str(), header) : done;
}

Result<void> settle_move(const PinDir& pins) {
        const char* header = pin_of(KernelMap::kHeader);
        const bool all_pinned = pins.get(next(kLinkPin).c_str()).has_value();
        const bool begun = all_pinned && !pins.get(next(header).c_str()).has_value();
        if (const auto fd = pins.get(begun ? header : next(header).c_str())) {
                std::array<std::uint32_t, sizeof(sb_header) / sizeof(std::uint32_t)> words{};  // magic, layout
                const std::uint32_t key = 0;
                if (bpf_map_lookup_elem(fd->get(), &key, words.data()) == 0 && words[2] != SB_LAYOUT) {
                        return {};  // another release's
                }
        }
        std::vector<const char*> names(kMapPins.begin(), kMapPins.end());
        names.insert(names.end(), {kProgramPin, kLinkPin});  // the link last: it tells that there is something to do
        if (!begun) {
                std::ranges::reverse(names);
        }
        for (const char* name : names) {
                auto done = begun ? pins.rename(next(name).c_str(), name) : pins.remove(next(name).c_str());
                if (!done && !(begun && done.error().errnum == ENOENT)) {  // renamed before the crash
                        return done;
                }
        }
        return {};
}

Result<KernelObjects> take_earlier_link(const PinDir& pins, KernelObjects objects) {
        auto link = pins.get(kEarlierLinkPin);
        if (!link) {
                return link.error().errnum == ENOENT ? Result<KernelObjects>(std::move(objects))
                                                     : std::unexpected(link.error());
        }
        objects.earlier_link = std::move(*link);
        return objects;
}

void forget_earlier(const PinDir& pins, KernelObjects& objects) {
        // Neither can fail but for a link that is detached already.
        (void)bpf_link_detach(objects.earlier_link.get());
        (void)pins.remove(kEarlierLinkPin);
        objects.earlier_link.reset();
}

}  // namespace sockbroker
