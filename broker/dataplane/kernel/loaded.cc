// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/loaded.h"

#include <bpf/bpf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "programs_digest.h"

namespace sockbroker {

namespace {

constexpr const char* kRecordPin = "loaded";
constexpr std::string_view kBuild = SB_PROGRAMS_DIGEST;

struct LoadRecord {
        char build[32];  // digest of the programs of a build
        std::uint32_t taken_up;
        std::uint32_t unused;
        std::uint64_t netns;  // inode of the network namespace in which it was loaded
};
static_assert(kBuild.size() == sizeof(LoadRecord::build));

}  // namespace

Result<sb_header> read_header(int fd, const std::string& path) {
        bpf_map_info info{};
        std::uint32_t length = sizeof info;
        if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0) {
                return fail_errno(fmt::format("cannot ask what is pinned as {}", path));
        }
        // Of another layout maybe: then only magic and layout mean what they do here.
        std::vector<std::uint64_t> bytes(std::max<std::size_t>(info.value_size, sizeof(sb_header)) / 8 + 1);
        const std::uint32_t key = 0;
        if (info.type != BPF_MAP_TYPE_ARRAY || bpf_map_lookup_elem(fd, &key, bytes.data()) != 0) {
                return fail(
                        fmt::format("{} is not a map of sockbroker; point --bpffs at a directory of its own", path));
        }
        sb_header header{};
        std::copy_n(reinterpret_cast<const char*>(bytes.data()), sizeof header, reinterpret_cast<char*>(&header));
        if (header.magic != SB_MAGIC) {
                return fail(
                        fmt::format("{} is not a map of sockbroker; point --bpffs at a directory of its own", path));
        }
        return header;
}

Result<KernelObjects> open_pinned_maps(const PinDir& pins) {
        KernelObjects result;
        for (std::size_t i = 0; i < kMaps; i++) {
                auto fd = pins.get(kMapPins[i]);
                if (!fd) {
                        return fail(fd.error().errnum,
                                    fmt::format("{}, although a link is pinned beside it; run sockbrokerctl unload, "
                                                "then start again",
                                                fd.error().message));
                }
                result.maps[i] = std::move(*fd);
        }
        const char* name = kMapPins[static_cast<std::size_t>(KernelMap::kHeader)];
        const auto header = read_header(result.fd(KernelMap::kHeader), pins.path_of(name));
        if (!header) {
                return std::unexpected(header.error());
        }
        const auto entries = [&](KernelMap map) {
                bpf_map_info info{};
                std::uint32_t length = sizeof info;
                return bpf_obj_get_info_by_fd(result.fd(map), &info, &length) == 0 ? info.max_entries : 0;
        };
        const std::uint64_t lines = header->lines;  // four rules in each at most
        const auto services = entries(KernelMap::kServices);
        const auto counted = entries(KernelMap::kCounted);
        if (header->generation > 1 || 2 * lines > entries(KernelMap::kArena) || header->bindings > 4 * lines ||
            header->services >= services || header->sockets >= entries(KernelMap::kSockets) || counted == 0) {
                return fail(
                        fmt::format("{} does not say what the maps beside it are; run sockbrokerctl unload, then "
                                    "start again",
                                    pins.path_of(name)));
        }
        result.capacity = {header->bindings, header->services, header->sockets, (counted - 1) / 2};
        result.lines = header->lines;
        result.service_ids = services - 1;
        result.taken_up = true;
        return result;
}

Result<void> forget_load(const PinDir& pins) {
        return pins.remove(kRecordPin);
}

Result<void> record_load(const PinDir& pins, bool taken_up) {
        LoadRecord record{};
        std::ranges::copy(kBuild, record.build);
        record.taken_up = taken_up ? 1 : 0;
        struct stat here {};
        if (stat("/proc/self/ns/net", &here) != 0) {
                return fail_errno("cannot look at /proc/self/ns/net");
        }
        record.netns = here.st_ino;
        const std::uint32_t key = 0;
        const OwnedFd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, "sb_loaded", sizeof key, sizeof record, 1, nullptr));
        if (!map || bpf_map_update_elem(map.get(), &key, &record, BPF_ANY) != 0) {
                return fail_errno("cannot record what was loaded");
        }
        return pins.replace(kRecordPin, map.get());
}

Result<Load> take_load(const PinDir& pins) {
        const auto map = pins.get(kRecordPin);
        if (!map) {
                return fail(map.error().errnum, fmt::format("no dispatch program is loaded for a broker without "
                                                            "capabilities ({}): {}",
                                                            map.error().message, kLoadAnew));
        }
        bpf_map_info info{};
        std::uint32_t length = sizeof info;
        LoadRecord record{};
        const std::uint32_t key = 0;
        if (bpf_obj_get_info_by_fd(map->get(), &info, &length) != 0 || info.type != BPF_MAP_TYPE_ARRAY ||
            info.value_size != sizeof record || bpf_map_lookup_elem(map->get(), &key, &record) != 0 ||
            std::string_view(record.build, sizeof record.build) != kBuild) {
                return fail(fmt::format("what is loaded in {} is of another version than this broker: {}",
                                        pins.path_of(""), kLoadAnew));
        }
        const Load load{.taken_up = record.taken_up != 0, .netns = record.netns};
        record.taken_up = 1;
        if (bpf_map_update_elem(map->get(), &key, &record, BPF_ANY) != 0) {
                return fail_errno(fmt::format("cannot write {}", pins.path_of(kRecordPin)));
        }
        return load;
}

}  // namespace sockbroker
