// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/compile.h"
#include "broker/dataplane/pins.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "dispatch.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

namespace {

using Skeleton = std::unique_ptr<dispatch, void (*)(dispatch*)>;

// What libbpf and the verifier say while it lives: the reason stands at the end.
class LibbpfLog {
public:
        LibbpfLog() : before_(libbpf_set_print(print)) { text().clear(); }
        ~LibbpfLog() { libbpf_set_print(before_); }
        LibbpfLog(const LibbpfLog&) = delete;
        LibbpfLog& operator=(const LibbpfLog&) = delete;

        [[nodiscard]] static std::string tail() {
                constexpr std::size_t kEnough = 4096;
                std::string result = text().size() > kEnough ? text().substr(text().size() - kEnough) : text();
                while (!result.empty() && result.back() == '\n') {
                        result.pop_back();
                }
                return result;
        }

private:
        static std::string& text() {
                static thread_local std::string collected;
                return collected;
        }
        static int print(libbpf_print_level level, const char* format, va_list arguments) {
                if (level != LIBBPF_WARN) {
                        return 0;
                }
                std::vector<char> buffer(1 << 16);  // the verifier's log comes in one piece
                const int length = vsnprintf(buffer.data(), buffer.size(), format, arguments);
                text().append(buffer.data(), std::min<std::size_t>(std::max(length, 0), buffer.size() - 1));
                return length;
        }

        libbpf_print_fn_t before_;
};

std::array<bpf_map*, kMaps> maps_of(const dispatch& skeleton) {
        const auto& maps = skeleton.maps;
        return {maps.meta,    maps.arena,       maps.tables, maps.services,         maps.records, maps.counters,
                maps.sockets, maps.registrants, maps.names,  maps.binding_counters, maps.counted};
}

void set_sizes(const dispatch& skeleton, const Capacity& capacity, std::uint32_t lines) {
        const auto set = [&](bpf_map* map, std::uint32_t entries) { bpf_map__set_max_entries(map, entries); };
        set(skeleton.maps.arena, 2 * lines);
        set(skeleton.maps.services, capacity.services + 1);
        set(skeleton.maps.names, capacity.services + 1);
        set(skeleton.maps.counters, capacity.services + 1);
        set(skeleton.maps.binding_counters, counter_places(capacity.accounted));
        set(skeleton.maps.counted, counter_places(capacity.accounted));
        set(skeleton.maps.records, capacity.services + 1 + kSpareRecords);
        set(skeleton.maps.sockets, capacity.sockets + spare_slots(capacity.sockets) + 1);
        set(skeleton.maps.registrants, capacity.sockets + spare_slots(capacity.sockets) + 1);
}

Result<sb_meta> read_meta(int fd, const std::string& path) {
        bpf_map_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0) {
                return fail_errno(fmt::format("cannot ask what is pinned as {}", path));
        }
        std::vector<std::uint64_t> bytes(std::max<std::size_t>(info.value_size, sizeof(sb_meta)) / 8 + 1);
        const std::uint32_t key = 0;
        if (info.type != BPF_MAP_TYPE_ARRAY || bpf_map_lookup_elem(fd, &key, bytes.data()) != 0) {
                return fail(
                        fmt::format("{} is not a map of sockbroker; point --bpffs at a directory of its own", path));
        }
        sb_meta meta{};
        std::copy_n(reinterpret_cast<const char*>(bytes.data()), sizeof meta, reinterpret_cast<char*>(&meta));
        if (meta.magic != SB_MAGIC) {
                return fail(
                        fmt::format("{} is not a map of sockbroker; point --bpffs at a directory of its own", path));
        }
        if (meta.layout != SB_LAYOUT || info.value_size != sizeof meta) {
                return fail(
                        fmt::format("the maps pinned beside {} have layout {}, this broker knows {}; dispatch goes on "
                                    "as it is; to change over run sockbrokerctl unload, then start again",
                                    path, meta.layout, SB_LAYOUT));
        }
        return meta;
}

Result<void> reuse_maps(const PinDir& pins, const dispatch& skeleton) {
        const auto maps = maps_of(skeleton);
        for (std::size_t i = 0; i < kMaps; i++) {
                const auto fd = pins.get(kMapPins[i]);
                bpf_map_info info{};
                std::uint32_t length = sizeof info;
                if (!fd || bpf_obj_get_info_by_fd(fd->get(), &info, &length) != 0) {
                        return fail(
                                fd ? errno : fd.error().errnum,
                                fmt::format("cannot take up {}, although a link is pinned beside it; run sockbrokerctl "
                                            "unload, then start again",
                                            pins.path_of(kMapPins[i])));
                }
                if (info.type != bpf_map__type(maps[i]) || info.value_size != bpf_map__value_size(maps[i])) {
                        return fail(
                                fmt::format("{} is of another type or size than its layout says; run sockbrokerctl "
                                            "unload, then start again",
                                            pins.path_of(kMapPins[i])));
                }
                if (const int error = bpf_map__reuse_fd(maps[i], fd->get()); error != 0) {
                        return fail(error, fmt::format("cannot take up {}", pins.path_of(kMapPins[i])));
                }
        }
        return {};
}

Result<OwnedFd> attach(int program) {
        const OwnedFd netns(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        if (!netns) {
                return fail_errno("cannot open /proc/self/ns/net");
        }
        OwnedFd link(bpf_link_create(program, netns.get(), BPF_SK_LOOKUP, nullptr));
        if (!link) {
                return fail_errno(
                        "cannot attach the dispatch program to this network namespace; at most 64 sk_lookup "
                        "programs fit, and each needs CAP_NET_ADMIN");
        }
        return link;
}

// Puts this build's program where the pinned link's was. A link that lost its namespace, or was detached by somebody,
// is made anew.
Result<void> take_over_link(const PinDir& pins, int link, int program) {
        bpf_link_info info{};
        std::uint32_t length = sizeof info;
        struct stat here {};
        if (bpf_obj_get_info_by_fd(link, &info, &length) != 0 || stat("/proc/self/ns/net", &here) != 0) {
                return fail_errno(fmt::format("cannot ask what {} is attached to", pins.path_of(kLinkPin)));
        }
        if (info.type != BPF_LINK_TYPE_NETNS) {
                return fail(fmt::format("{} is not a link of sockbroker; point --bpffs at a directory of its own",
                                        pins.path_of(kLinkPin)));
        }
        if (info.netns.netns_ino == 0) {
                auto fresh = attach(program);
                return fresh ? pins.replace(kLinkPin, fresh->get()) : std::unexpected(fresh.error());
        }
        if (info.netns.netns_ino != here.st_ino) {
                return fail(
                        fmt::format("{} is attached to another network namespace (inode {}, here {}); each namespace "
                                    "needs a directory of its own: --bpffs",
                                    pins.path_of(kLinkPin), info.netns.netns_ino, here.st_ino));
        }
        if (bpf_link_update(link, program, nullptr) != 0) {
                return fail_errno(fmt::format("cannot put the new program into {}", pins.path_of(kLinkPin)));
        }
        return {};
}

Result<void> write_meta(int fd, const Capacity& capacity, std::uint32_t lines) {
        const std::uint32_t key = 0;
        const sb_meta meta{.magic = SB_MAGIC,
                           .layout = SB_LAYOUT,
                           .generation = 0,
                           .lines = lines,
                           .bindings = capacity.bindings,
                           .services = capacity.services,
                           .sockets = capacity.sockets};
        if (bpf_map_update_elem(fd, &key, &meta, BPF_ANY) != 0) {
                return fail_errno("cannot write the map meta");
        }
        return {};
}

Result<void> pin_all(const PinDir& pins, const dispatch& skeleton) {
        const auto maps = maps_of(skeleton);
        for (std::size_t i = 0; i < kMaps; i++) {
                if (auto pinned = pins.pin(kMapPins[i], bpf_map__fd(maps[i])); !pinned) {
                        return pinned;
                }
        }
        const int program = bpf_program__fd(skeleton.progs.dispatch);
        if (auto pinned = pins.pin(kProgramPin, program); !pinned) {
                return pinned;
        }
        auto link = attach(program);
        return link ? pins.pin(kLinkPin, link->get()) : std::unexpected(link.error());
}

Result<void> check_capacity(const Capacity& capacity) {
        constexpr std::uint32_t kMost = 1U << 24;
        if (capacity.bindings == 0 || capacity.bindings > kMost || capacity.services == 0 ||
            capacity.services > SB_META_SERVICE || capacity.sockets == 0 || capacity.sockets > kMost) {
                return fail(fmt::format(
                        "cannot make room for {} bindings, {} services and {} sockets; MaxBindings= and "
                        "MaxSockets= reach {}, MaxServices= {}",
                        capacity.bindings, capacity.services, capacity.sockets, kMost, int{SB_META_SERVICE}));
        }
        return {};
}

}  // namespace

Result<KernelObjects> open_kernel_objects(const std::string& pin_dir, const Capacity& capacity) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        const LibbpfLog log;
        const Skeleton skeleton(dispatch__open(), dispatch__destroy);
        if (!skeleton) {
                return fail_errno(
                        fmt::format("cannot open the dispatch program built into this broker: {}", log.tail()));
        }

        KernelObjects result;
        const auto link = pins->get(kLinkPin);
        if (!link && link.error().errnum != ENOENT) {
                return std::unexpected(link.error());
        }
        if (link) {
                const auto meta_fd = pins->get("meta");
                if (!meta_fd) {
                        return fail(meta_fd.error().errnum, meta_fd.error().message +
                                                                    ", although a link is pinned beside it; run "
                                                                    "sockbrokerctl unload, then start again");
                }
                const auto meta = read_meta(meta_fd->get(), pins->path_of("meta"));
                if (!meta) {
                        return std::unexpected(meta.error());
                }
                if (auto reused = reuse_maps(*pins, *skeleton); !reused) {
                        return std::unexpected(reused.error());
                }
                result.taken_up = true;
                result.capacity = {meta->bindings, meta->services, meta->sockets,
                                   (bpf_map__max_entries(skeleton->maps.counted) - 1) / 2};
                result.lines = meta->lines;
        } else {
                if (auto checked = check_capacity(capacity); !checked) {
                        return std::unexpected(checked.error());
                }
                // Left by a broker that was killed before it pinned the link: nothing was ever dispatched by it.
                if (auto cleared = pins->clear(); !cleared) {
                        return std::unexpected(cleared.error());
                }
                result.capacity = capacity;
                result.lines = lines_for(capacity.bindings);
                set_sizes(*skeleton, result.capacity, result.lines);
        }

        if (const int error = dispatch__load(skeleton.get()); error != 0) {
                return fail(error, fmt::format("cannot load the dispatch program; it needs CAP_BPF, CAP_PERFMON, "
                                               "CAP_NET_ADMIN and a kernel from 6.1: {}",
                                               log.tail()));
        }
        const int program = bpf_program__fd(skeleton->progs.dispatch);
        Result<void> done;
        if (result.taken_up) {
                done = take_over_link(*pins, link->get(), program);
                done = done ? pins->replace(kProgramPin, program) : done;
        } else {
                done = write_meta(bpf_map__fd(skeleton->maps.meta), capacity, result.lines);
                done = done ? pin_all(*pins, *skeleton) : done;
        }
        if (!done) {
                return std::unexpected(done.error());
        }
        result.probe.reset(fcntl(bpf_program__fd(skeleton->progs.probe), F_DUPFD_CLOEXEC, 3));
        if (!result.probe) {
                return fail_errno("cannot keep the probe program");
        }
        const auto maps = maps_of(*skeleton);
        for (std::size_t i = 0; i < kMaps; i++) {
                result.maps[i].reset(fcntl(bpf_map__fd(maps[i]), F_DUPFD_CLOEXEC, 3));
                if (!result.maps[i]) {
                        return fail_errno(fmt::format("cannot keep the map {}", kMapPins[i]));
                }
        }
        return result;
}

Result<void> unload_kernel_objects(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        // Detached, not only unpinned: whoever still has the link open must not keep dispatch alive.
        if (const auto link = pins->get(kLinkPin); link && bpf_link_detach(link->get()) != 0 && errno != EINVAL) {
                return fail_errno(fmt::format("cannot detach {}", pins->path_of(kLinkPin)));
        }
        return pins->clear();
}

}  // namespace sockbroker
