// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/growth.h"

#include <bpf/bpf.h>

#include <algorithm>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/copy.h"
#include "broker/dataplane/kernel/mapping.h"

namespace sockbroker {

namespace {

constexpr const char* kGrownProgram = "grown_program";

std::string grown(const char* name) {
        return std::string("grown_") + name;
}

// References are counted from the first line of their generation, so the lines stay as they are.
Result<void> copy_rules(const KernelObjects& before, const KernelObjects& after, std::uint32_t generation) {
        const auto from =
                Mapping<sb_line>::create(before.fd(KernelMap::kArena), std::size_t{2} * before.lines, "arena");
        const auto to = Mapping<sb_line>::create(after.fd(KernelMap::kArena), std::size_t{2} * after.lines, "arena");
        for (const auto* one : {&from, &to}) {
                if (!*one) {
                        return std::unexpected(one->error());
                }
        }
        std::copy_n(from->data() + std::size_t{generation} * before.lines, before.lines,
                    to->data() + std::size_t{generation} * after.lines);
        return copy_array(before.fd(KernelMap::kTables), after.fd(KernelMap::kTables), "tables");
}

Result<void> copy_flows(const KernelObjects& before, const KernelObjects& after) {
        const auto from = Mapping<sb_flow_line>::create(before.fd(KernelMap::kFlows), SB_FLOW_LINES, "flows");
        const auto to = Mapping<sb_flow_line>::create(after.fd(KernelMap::kFlows), SB_FLOW_LINES, "flows");
        if (!from || !to) {
                return std::unexpected((from ? to : from).error());
        }
        for (std::size_t line = 0; line < SB_FLOW_LINES; line++) {
                for (std::size_t way = 0; way < SB_FLOW_WAYS; way++) {
                        if ((*from)[line].entry[way] != 0) {  // so that empty pages stay untouched
                                (*to)[line].entry[way] = (*from)[line].entry[way];
                        }
                }
        }
        return {};
}

// 0: no such program.
Result<std::uint32_t> program_id(const PinDir& pins, const char* name) {
        const auto program = pins.get(name);
        if (!program) {
                return program.error().errnum == ENOENT ? Result<std::uint32_t>(0) : std::unexpected(program.error());
        }
        bpf_prog_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(program->get(), &info, &length) != 0) {
                return fail_errno(fmt::format("cannot ask what {} is", pins.path_of(name)));
        }
        return info.id;
}

}  // namespace

Result<void> copy_state(const KernelObjects& before, const KernelObjects& after) {
        sb_header header{};
        const std::uint32_t key = 0;
        if (bpf_map_lookup_elem(before.fd(KernelMap::kHeader), &key, &header) != 0) {
                return fail_errno("cannot read the map meta");
        }
        auto done = copy_rules(before, after, header.generation);
        for (const auto map :
             {KernelMap::kServices, KernelMap::kRecords, KernelMap::kRegistrants, KernelMap::kNames,
              KernelMap::kCounters, KernelMap::kBindingCounters, KernelMap::kCounted, KernelMap::kSlots}) {
                done = done ? copy_array(before.fd(map), after.fd(map), kMapPins[static_cast<std::size_t>(map)]) : done;
        }
        done = done ? copy_flows(before, after) : done;
        done = done ? copy_sockets(before.fd(KernelMap::kSockets), after.fd(KernelMap::kSockets)) : done;
        if (!done) {
                return done;
        }
        header.lines = after.lines;
        header.bindings = after.capacity.bindings;
        header.services = after.capacity.services;
        header.sockets = after.capacity.sockets;
        if (bpf_map_update_elem(after.fd(KernelMap::kHeader), &key, &header, BPF_ANY) != 0) {
                return fail_errno("cannot write the map meta");
        }
        return {};
}

// The program last: without it the others mean nothing.
Result<void> pin_grown(const PinDir& pins, const KernelObjects& objects, int program) {
        for (std::size_t i = 0; i < kMaps; i++) {
                if (auto pinned = pins.pin(grown(kMapPins[i]).c_str(), objects.maps[i].get()); !pinned) {
                        return pinned;
                }
        }
        return pins.pin(kGrownProgram, program);
}

Result<void> settle_growth(const PinDir& pins) {
        const auto link = pins.get(kLinkPin);
        if (!link) {
                return std::unexpected(link.error());
        }
        bpf_link_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(link->get(), &info, &length) != 0) {
                return fail_errno(fmt::format("cannot ask what {} runs", pins.path_of(kLinkPin)));
        }
        const auto id = program_id(pins, kGrownProgram);
        if (!id) {
                return std::unexpected(id.error());
        }
        const bool in_force = *id != 0 && *id == info.prog_id;
        for (const char* name : kMapPins) {
                auto done = in_force ? pins.rename(grown(name).c_str(), name) : pins.remove(grown(name).c_str());
                if (!done && !(in_force && done.error().errnum == ENOENT)) {  // renamed before the crash
                        return done;
                }
        }
        return in_force ? pins.rename(kGrownProgram, kProgramPin) : pins.remove(kGrownProgram);
}

}  // namespace sockbroker
