// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/notify_filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cstring>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "bpf/group.h"
#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "notify.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

namespace {

constexpr const char* kFilterPin = "notify";
constexpr const char* kUnheardPin = "unheard";
constexpr const char* kUnheardGroupsPin = "unheard_groups";
constexpr const char* kGroupsPin = "groups";

// 0: there is no such hierarchy, and nobody in any group.
std::uint64_t root_cgroup() {
        for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
                struct statfs fs {};
                struct stat status {};
                if (statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC && stat(path, &status) == 0) {
                        return status.st_ino;
                }
        }
        return 0;
}

sb_group group_named(const std::string& name) {
        sb_group group{};
        name.copy(group.name, sizeof group.name - 1);
        return group;
}

// What a broker before this one said is over.
template <class Key>
void clear(int map) {
        Key key{};
        while (bpf_map_get_next_key(map, nullptr, &key) == 0 && bpf_map_delete_elem(map, &key) == 0) {
        }
}

template <class Key>
void silence_in(int map, Key key) {
        const std::uint64_t none = 0;
        (void)bpf_map_update_elem(map, &key, &none, BPF_NOEXIST);  // where it is full: as without
}

template <class Key>
std::uint64_t hear_in(int map, Key key) {
        std::uint64_t dropped = 0;
        (void)bpf_map_lookup_elem(map, &key, &dropped);
        (void)bpf_map_delete_elem(map, &key);
        return dropped;
}

}  // namespace

Result<void> NotifyFilter::load(const PinDir& pins) {
        const LibbpfLog log;
        const std::unique_ptr<::notify, void (*)(::notify*)> skeleton(notify__open(), notify__destroy);
        if (skeleton) {
                skeleton->rodata->root_cgroup = root_cgroup();
        }
        if (!skeleton || notify__load(skeleton.get()) != 0) {
                return fail_errno(fmt::format("cannot load the filter of the notify socket: {}", LibbpfLog::tail()));
        }
        auto done = pins.replace(kFilterPin, bpf_program__fd(skeleton->progs.notify));
        done = done ? pins.replace(kUnheardPin, bpf_map__fd(skeleton->maps.unheard)) : done;
        done = done ? pins.replace(kUnheardGroupsPin, bpf_map__fd(skeleton->maps.unheard_groups)) : done;
        return done ? pins.replace(kGroupsPin, bpf_map__fd(skeleton->maps.groups)) : done;
}

Result<NotifyFilter> NotifyFilter::open(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        NotifyFilter filter;
        for (const auto& [name, fd] : {std::pair{kFilterPin, &filter.program_},
                                       {kUnheardPin, &filter.unheard_},
                                       {kUnheardGroupsPin, &filter.unheard_groups_},
                                       {kGroupsPin, &filter.groups_}}) {
                auto pinned = pins->get(name);
                if (!pinned) {
                        return std::unexpected(pinned.error());
                }
                *fd = std::move(*pinned);
        }
        clear<uid_t>(filter.unheard_.get());
        clear<sb_group>(filter.unheard_groups_.get());
        return filter;
}

Result<void> NotifyFilter::attach(int socket) const {
        const int program = program_.get();
        if (setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program) != 0) {
                return fail_errno("cannot attach the filter of the notify socket");
        }
        return {};
}

void NotifyFilter::silence(uid_t uid) noexcept {
        silence_in(unheard_.get(), uid);
}

std::uint64_t NotifyFilter::hear(uid_t uid) noexcept {
        return hear_in(unheard_.get(), uid);
}

void NotifyFilter::silence_group(const std::string& name) noexcept {
        silence_in(unheard_groups_.get(), group_named(name));
}

std::uint64_t NotifyFilter::hear_group(const std::string& name) noexcept {
        return hear_in(unheard_groups_.get(), group_named(name));
}

std::string NotifyFilter::group_of(uid_t uid) const {
        const std::uint32_t key = sb_uids_of(uid);
        sb_group group{};
        (void)bpf_map_lookup_elem(groups_.get(), &key, &group);
        return {group.name, strnlen(group.name, sizeof group.name)};
}

}  // namespace sockbroker
