// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/skeleton.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <fmt/format.h>

#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "dispatch.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

Result<Skeleton> Skeleton::open() {
        Owner skeleton(dispatch__open(), dispatch__destroy);
        if (!skeleton) {
                return fail_errno(
                        fmt::format("cannot open the dispatch program built into this broker: {}", LibbpfLog::tail()));
        }
        return Skeleton(std::move(skeleton));
}

void Skeleton::set_sizes(const Capacity& capacity, std::uint32_t lines) {
        const auto set = [](bpf_map* map, std::uint32_t entries) { bpf_map__set_max_entries(map, entries); };
        set(skeleton_->maps.arena, 2 * lines);
        set(skeleton_->maps.services, service_ids(capacity.services) + 1);
        set(skeleton_->maps.names, service_ids(capacity.services) + 1);
        set(skeleton_->maps.counters, service_ids(capacity.services) + 1);
        set(skeleton_->maps.records, record_entries(capacity));
        set(skeleton_->maps.binding_counters, counter_entries(capacity.accounted));
        set(skeleton_->maps.counted, counter_entries(capacity.accounted));
        set(skeleton_->maps.sockets, slot_entries(capacity));
        set(skeleton_->maps.slots, slot_entries(capacity));
        set(skeleton_->maps.registrants, slot_entries(capacity));
}

Result<void> Skeleton::load() {
        if (const int error = dispatch__load(skeleton_.get()); error != 0) {
                return fail(error, fmt::format("cannot load the dispatch program; it needs CAP_BPF, CAP_PERFMON, "
                                               "CAP_NET_ADMIN and a kernel from 6.1: {}",
                                               LibbpfLog::tail()));
        }
        return {};
}

Result<void> Skeleton::keep_fds(KernelObjects& objects) const {
        objects.probe.reset(fcntl(bpf_program__fd(skeleton_->progs.probe), F_DUPFD_CLOEXEC, 3));
        objects.migration.reset(fcntl(bpf_program__fd(skeleton_->progs.migrate), F_DUPFD_CLOEXEC, 3));
        if (!objects.probe || !objects.migration) {
                return fail_errno("cannot keep a program");
        }
        const auto all = maps();
        for (std::size_t i = 0; i < kMaps; i++) {
                objects.maps[i].reset(fcntl(bpf_map__fd(all[i]), F_DUPFD_CLOEXEC, 3));
                if (!objects.maps[i]) {
                        return fail_errno(fmt::format("cannot keep the map {}", kMapPins[i]));
                }
        }
        return {};
}

std::array<bpf_map*, kMaps> Skeleton::maps() const {
        return in_order(skeleton_->maps);
}

int Skeleton::program() const {
        return bpf_program__fd(skeleton_->progs.dispatch);
}

}  // namespace sockbroker
