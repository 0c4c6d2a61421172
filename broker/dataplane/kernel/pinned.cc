// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/pinned.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/base/owned_fd.h"
#include "broker/dataplane/kernel/link.h"
#include "broker/dataplane/kernel/loaded.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"
#include "broker/dataplane/kernel/registrants.h"
#include "broker/dataplane/kernel/service_counters.h"
#include "broker/dataplane/kernel/targets.h"

namespace sockbroker {

namespace {

class Maps {
public:
        static Result<Maps> open(const PinDir& pins) {
                if (auto known = check_layout(pins); !known) {  // first: another one may lack some of the maps
                        return std::unexpected(known.error());
                }
                Maps result;
                for (std::size_t i = 0; i < kMaps; i++) {
                        auto fd = pins.get(kMapPins[i]);
                        if (!fd) {
                                return std::unexpected(fd.error());
                        }
                        result.fds_[i] = std::move(*fd);
                }
                return result;
        }

        [[nodiscard]] int fd(KernelMap map) const { return fds_[static_cast<std::size_t>(map)].get(); }
        [[nodiscard]] bpf_map_info size(KernelMap map) const {
                bpf_map_info info{};
                std::uint32_t length = sizeof info;
                (void)bpf_obj_get_info_by_fd(fd(map), &info, &length);  // then it is empty, and so is what is read
                return info;
        }
        template <class T>
        [[nodiscard]] T read(KernelMap map, std::uint32_t key) const {
                T value{};
                (void)bpf_map_lookup_elem(fd(map), &key, &value);  // likewise
                return value;
        }

private:
        static Result<void> check_layout(const PinDir& pins) {
                const char* name = kMapPins[static_cast<std::size_t>(KernelMap::kHeader)];
                const auto fd = pins.get(name);
                if (!fd) {
                        return std::unexpected(fd.error());
                }
                const auto header = read_header(fd->get(), pins.path_of(name));
                if (!header) {
                        return std::unexpected(header.error());
                }
                return header->layout == SB_LAYOUT
                               ? Result<void>()
                               : fail(fmt::format("the maps pinned in {} have layout {}, this tool reads layout {}",
                                                  pins.path_of(""), header->layout, std::uint32_t{SB_LAYOUT}));
        }

        std::array<OwnedFd, kMaps> fds_;
};

ServiceCounters counters_of(const Maps& maps, std::uint32_t id) {
        ServiceCounters sum = read_counters(maps.fd(KernelMap::kCounters), id, std::max(1, libbpf_num_possible_cpus()));
        sum.crossed = maps.read<sb_service>(KernelMap::kServices, id).crossed;
        return sum;
}

// Slots that serve: the first that lives of each protocol and family or, where they share, all.
std::vector<Slot> serving(const Targets& targets, const std::map<Slot, Registrant>& living) {
        std::vector<Slot> result;
        for (const auto& families : targets.slots) {
                for (const auto& slots : families) {
                        for (const Slot slot : slots) {
                                if (living.contains(slot)) {
                                        result.push_back(slot);
                                        if (!targets.share) {
                                                break;
                                        }
                                }
                        }
                }
        }
        return result;
}

}  // namespace

Result<PinnedLink> look_at_link(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        const auto link = pins ? pins->get(kLinkPin) : std::unexpected(pins.error());
        if (!link && link.error().errnum == ENOENT) {
                return PinnedLink::kNone;
        }
        const auto netns = link ? netns_of_link(*pins, link->get()) : std::unexpected(link.error());
        if (!netns) {
                return std::unexpected(netns.error());
        }
        return *netns == 0 ? PinnedLink::kDetached : PinnedLink::kAttached;
}

Result<std::vector<PinnedService>> read_pins(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        const auto maps = Maps::open(*pins);
        if (!maps) {
                return std::unexpected(maps.error());
        }
        std::map<ServiceId, std::map<Slot, Registrant>> sockets;
        for (Slot slot = 1; slot < maps->size(KernelMap::kRegistrants).max_entries; slot++) {
                const auto raw = read_registrant(maps->fd(KernelMap::kRegistrants), slot);
                if (raw && raw->service != 0 && maps->read<std::uint64_t>(KernelMap::kSockets, slot) == raw->cookie) {
                        sockets[raw->service].emplace(slot, decode_registrant(*raw));
                }
        }
        std::vector<sb_record> records(maps->size(KernelMap::kRecords).max_entries);
        for (std::uint32_t i = 0; !sockets.empty() && i < records.size(); i++) {
                records[i] = maps->read<sb_record>(KernelMap::kRecords, i);
        }
        std::vector<PinnedService> result;
        for (ServiceId id = 1; id < maps->size(KernelMap::kNames).max_entries; id++) {
                auto name = maps->read<sb_name>(KernelMap::kNames, id);
                name.text[sizeof name.text - 1] = '\0';
                if (name.text[0] == '\0') {
                        continue;
                }
                PinnedService service{.name = name.text, .counters = counters_of(*maps, id), .sockets = {}};
                if (const auto of_it = sockets.find(id); of_it != sockets.end()) {
                        const auto index = maps->read<sb_service>(KernelMap::kServices, id).record;
                        const auto live = serving(read_records(index, records), of_it->second);
                        for (const auto& [slot, registrant] : of_it->second) {
                                service.sockets.push_back(
                                        {.registrant = registrant, .live = std::ranges::count(live, slot) > 0});
                        }
                }
                result.push_back(std::move(service));
        }
        std::ranges::sort(result, {}, &PinnedService::name);
        return result;
}

}  // namespace sockbroker
