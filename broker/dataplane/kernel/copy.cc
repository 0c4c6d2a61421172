// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/copy.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <vector>

#include <fmt/format.h>

#include "broker/dataplane/kernel/copier.h"

namespace sockbroker {

namespace {

Result<bpf_map_info> info_of(int fd) {
        bpf_map_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0) {
                return fail_errno("cannot ask for the size of a map");
        }
        return info;
}

}  // namespace

Result<std::uint32_t> map_entries(int fd) {
        const auto info = info_of(fd);
        return info ? Result<std::uint32_t>(info->max_entries) : std::unexpected(info.error());
}

Result<void> copy_array(int before, int after, const char* name) {
        const auto info = info_of(before);
        if (!info) {
                return std::unexpected(info.error());
        }
        const int cpus = info->type == BPF_MAP_TYPE_PERCPU_ARRAY ? libbpf_num_possible_cpus() : 1;
        std::vector<std::uint64_t> value((info->value_size + 7) / 8 * static_cast<std::size_t>(cpus));
        for (std::uint32_t key = 0; key < info->max_entries; key++) {
                if (bpf_map_lookup_elem(before, &key, value.data()) != 0 ||
                    bpf_map_update_elem(after, &key, value.data(), BPF_ANY) != 0) {
                        return fail_errno(fmt::format("cannot copy entry {} of the map {}", key, name));
                }
        }
        return {};
}

Result<void> copy_sockets(int before, int after) {
        const auto copier = SocketCopier::load(before, after);
        if (!copier) {
                return std::unexpected(copier.error());
        }
        const auto entries = map_entries(before);
        if (!entries) {
                return std::unexpected(entries.error());
        }
        for (std::uint32_t slot = 1; slot < *entries; slot++) {
                if (auto done = copier->copy(slot, slot);
                    !done && done.error().errnum != ENOENT && done.error().errnum != EOPNOTSUPP) {
                        return done;
                }
        }
        return {};
}

}  // namespace sockbroker
