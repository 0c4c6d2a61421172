// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/growth.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/copier.h"
#include "broker/dataplane/kernel/mapping.h"

namespace sockbroker {

namespace {

constexpr const char* kGrownProgram = "grown_program";

std::string grown(const char* name) {
        return std::string("grown_") + name;
}

Result<bpf_map_info> info_of(int fd) {
        bpf_map_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0) {
                return fail_errno("cannot ask for the size of a map");
        }
        return info;
}

Result<void> copy_array(const KernelObjects& before, const KernelObjects& after, KernelMap map) {
        const auto info = info_of(before.fd(map));
        if (!info) {
                return std::unexpected(info.error());
        }
        const int cpus = info->type == BPF_MAP_TYPE_PERCPU_ARRAY ? libbpf_num_possible_cpus() : 1;
        std::vector<std::uint64_t> value((info->value_size + 7) / 8 * static_cast<std::size_t>(cpus));
        for (std::uint32_t key = 0; key < info->max_entries; key++) {
                if (bpf_map_lookup_elem(before.fd(map), &key, value.data()) != 0 ||
                    bpf_map_update_elem(after.fd(map), &key, value.data(), BPF_ANY) != 0) {
                        return fail_errno(fmt::format("cannot copy entry {} of the map {}", key,
                                                      kMapPins[static_cast<std::size_t>(map)]));
                }
        }
        return {};
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
        return copy_array(before, after, KernelMap::kTables);
}

Result<void> copy_sockets(const KernelObjects& before, const KernelObjects& after) {
        const auto copier = SocketCopier::load(before.fd(KernelMap::kSockets), after.fd(KernelMap::kSockets));
        if (!copier) {
                return std::unexpected(copier.error());
        }
        const auto info = info_of(before.fd(KernelMap::kSockets));
        if (!info) {
                return std::unexpected(info.error());
        }
        for (std::uint32_t slot = 1; slot < info->max_entries; slot++) {
                // One that its owner has shut down served nobody.
                if (auto done = (*copier)->copy(slot, slot);
                    !done && done.error().errnum != ENOENT && done.error().errnum != EOPNOTSUPP) {
                        return done;
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
        for (const auto map : {KernelMap::kServices, KernelMap::kRecords, KernelMap::kRegistrants, KernelMap::kNames,
                               KernelMap::kCounters, KernelMap::kBindingCounters, KernelMap::kCounted}) {
                done = done ? copy_array(before, after, map) : done;
        }
        done = done ? copy_sockets(before, after) : done;
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
