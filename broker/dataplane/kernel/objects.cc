// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/objects.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/random.h>

#include <algorithm>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/compile/compile.h"
#include "broker/dataplane/kernel/earlier.h"
#include "broker/dataplane/kernel/growth.h"
#include "broker/dataplane/kernel/libbpf_log.h"
#include "broker/dataplane/kernel/link.h"
#include "broker/dataplane/kernel/loaded.h"
#include "broker/dataplane/kernel/skeleton.h"

namespace sockbroker {

namespace {

// Of the pinned maps, before anything is touched. Where the pin is missing it is this build's: open_pinned() says what
// to do.
Result<std::uint32_t> pinned_layout(const PinDir& pins) {
        const char* name = kMapPins[static_cast<std::size_t>(KernelMap::kHeader)];
        const auto fd = pins.get(name);
        if (!fd) {
                return SB_LAYOUT;
        }
        const auto header = read_header(fd->get(), pins.path_of(name));
        return header ? Result<std::uint32_t>(header->layout) : std::unexpected(header.error());
}

// Empty: this build reads and writes it, or can take what counts of it along.
Result<void> check_layout(const PinDir& pins, std::uint32_t layout) {
        if (layout != SB_LAYOUT && !is_earlier_layout(layout)) {
                return fail(fmt::format(
                        "the maps pinned beside {} have layout {}, this broker knows {}; dispatch goes on as it is; to "
                        "change over run sockbrokerctl unload, then start again",
                        pins.path_of(kMapPins[static_cast<std::size_t>(KernelMap::kHeader)]), layout, SB_LAYOUT));
        }
        return {};
}

// The maps that an earlier broker pinned; the link is not taken yet.
Result<KernelObjects> open_pinned(const PinDir& pins, const Skeleton& skeleton) {
        auto found = open_pinned_maps(pins);
        if (!found) {
                return found;
        }
        const auto maps = skeleton.maps();
        for (std::size_t i = 0; i < kMaps; i++) {
                bpf_map_info info{};
                std::uint32_t length = sizeof info;
                if (bpf_obj_get_info_by_fd(found->maps[i].get(), &info, &length) != 0 ||
                    info.type != bpf_map__type(maps[i]) || info.value_size != bpf_map__value_size(maps[i])) {
                        return fail(
                                fmt::format("{} is of another type or size than its layout says; run sockbrokerctl "
                                            "unload, then start again",
                                            pins.path_of(kMapPins[i])));
                }
        }
        return found;
}

// secrets: of the state that is taken along, so that flows stay where they are; each that is 0 is made anew.
Result<void> write_header(int fd, const Capacity& capacity, std::uint32_t lines, const Secrets& secrets) {
        const std::uint32_t key = 0;
        Secrets random{};
        if (getrandom(random.data(), sizeof random, 0) != sizeof random) {
                return fail_errno("cannot get a random number");
        }
        const auto secret = [&](std::size_t i) { return secrets.at(i) != 0 ? secrets.at(i) : random.at(i); };
        const sb_header header{.magic = SB_MAGIC,
                               .layout = SB_LAYOUT,
                               .generation = 0,
                               .lines = lines,
                               .bindings = capacity.bindings,
                               .services = capacity.services,
                               .sockets = capacity.sockets,
                               .secret = secret(0),
                               .flow_secret = {secret(1), secret(2)}};
        if (bpf_map_update_elem(fd, &key, &header, BPF_ANY) != 0) {
                return fail_errno("cannot write the map meta");
        }
        return {};
}

Result<void> pin_all(const PinDir& pins, const Skeleton& skeleton) {
        const auto maps = skeleton.maps();
        for (std::size_t i = 0; i < kMaps; i++) {
                if (auto pinned = pins.pin(kMapPins[i], bpf_map__fd(maps[i])); !pinned) {
                        return pinned;
                }
        }
        const int program = skeleton.program();
        if (auto pinned = pins.pin(kProgramPin, program); !pinned) {
                return pinned;
        }
        auto link = attach(program);
        return link ? pins.pin(kLinkPin, link->get()) : std::unexpected(link.error());
}

Result<void> check_capacity(const Capacity& capacity) {
        constexpr std::uint32_t kMost = 1U << 24;
        constexpr std::uint32_t kMostServices = SB_RULE_SERVICE / 2;  // see service_ids()
        if (capacity.bindings == 0 || capacity.bindings > kMost || capacity.services == 0 ||
            capacity.services > kMostServices || capacity.sockets == 0 || capacity.sockets > kMost) {
                return fail(
                        fmt::format("cannot make room for {} bindings, {} services and {} sockets; MaxBindings= and "
                                    "MaxSockets= reach {}, MaxServices= {}",
                                    capacity.bindings, capacity.services, capacity.sockets, kMost, kMostServices));
        }
        return {};
}

Result<KernelObjects> make_anew(const PinDir& pins, Skeleton& skeleton, const Capacity& capacity) {
        if (auto checked = check_capacity(capacity); !checked) {
                return std::unexpected(checked.error());
        }
        // Left by a broker that was killed before it pinned the link: nothing was ever dispatched by it.
        if (auto cleared = pins.clear(); !cleared) {
                return std::unexpected(cleared.error());
        }
        KernelObjects result;
        result.capacity = capacity;
        result.service_ids = service_ids(capacity.services);
        result.lines = lines_for(capacity.bindings);
        skeleton.set_sizes(result.capacity, result.lines);
        auto done = skeleton.load();
        done = done ? skeleton.keep_fds(result) : done;
        done = done ? write_header(result.fd(KernelMap::kHeader), capacity, result.lines, {}) : done;
        done = done ? pin_all(pins, skeleton) : done;
        return done ? Result<KernelObjects>(std::move(result)) : std::unexpected(done.error());
}

Result<KernelObjects> take_up(const PinDir& pins, int link, Skeleton& skeleton, KernelObjects found) {
        const auto maps = skeleton.maps();
        for (std::size_t i = 0; i < kMaps; i++) {
                if (const int error = bpf_map__reuse_fd(maps[i], found.maps[i].get()); error != 0) {
                        return fail(error, fmt::format("cannot take up {}", pins.path_of(kMapPins[i])));
                }
        }
        auto done = skeleton.load();
        done = done ? skeleton.keep_fds(found) : done;
        const int fd = skeleton.program();
        done = done ? forget_load(pins) : done;
        done = done ? take_over_link(pins, link, fd) : done;
        done = done ? pins.replace(kProgramPin, fd) : done;
        return done ? Result<KernelObjects>(std::move(found)) : std::unexpected(done.error());
}

// The programs in cgroups of units use them too.
constexpr std::array kNeverGrown{KernelMap::kReplies, KernelMap::kQuestions, KernelMap::kAnswered, KernelMap::kUnits};

// Everything anew in larger maps, live sockets too. Until the link has the new program nothing has changed.
Result<KernelObjects> grow(const PinDir& pins, int link, const KernelObjects& before, const Capacity& capacity) {
        if (auto checked = check_capacity(capacity); !checked) {
                return std::unexpected(checked.error());
        }
        auto skeleton = Skeleton::open();
        if (!skeleton) {
                return std::unexpected(skeleton.error());
        }
        KernelObjects result;
        result.taken_up = true;
        result.capacity = capacity;
        result.service_ids = std::max(before.service_ids, service_ids(capacity.services));
        result.lines = std::max(before.lines, lines_for(capacity.bindings));
        skeleton->set_sizes(result.capacity, result.lines);
        Result<void> done;
        for (const auto map : kNeverGrown) {
                if (done && bpf_map__reuse_fd(skeleton->map(map), before.fd(map)) != 0) {
                        done = fail_errno(fmt::format("cannot take the map {} along",
                                                      kMapPins.at(static_cast<std::size_t>(map))));
                }
        }
        done = done ? skeleton->load() : done;
        done = done ? skeleton->keep_fds(result) : done;
        done = done ? copy_state(before, result) : done;
        const int program = skeleton->program();
        done = done ? forget_load(pins) : done;
        done = done ? pin_grown(pins, result, program) : done;
        done = done ? take_over_link(pins, link, program) : done;
        done = done ? settle_growth(pins) : done;
        return done ? Result<KernelObjects>(std::move(result)) : std::unexpected(done.error());
}

Capacity larger(const Capacity& one, const Capacity& other) {
        return {.bindings = std::max(one.bindings, other.bindings),
                .services = std::max(one.services, other.services),
                .sockets = std::max(one.sockets, other.sockets),
                .accounted = std::max(one.accounted, other.accounted)};
}

// Maps that both programs use, for as long as both are there: flows, which come and go until there are new rules; and
// units, which the kernel keeps for each cgroup with the programs that are attached there, and those stay.
Result<void> share_maps(const EarlierState& before, const Skeleton& skeleton) {
        for (const auto map : {KernelMap::kFlows, KernelMap::kUnits}) {
                if (before.fd(map) >= 0 && bpf_map__reuse_fd(skeleton.map(map), before.fd(map)) != 0) {
                        return fail_errno(fmt::format("cannot take the map {} along",
                                                      kMapPins.at(static_cast<std::size_t>(map))));
                }
        }
        return {};
}

// From maps of an earlier layout into new ones of this: what outlives a broker is copied, the rules are not. So the old
// program goes on beside the new one until there are rules: see forget_earlier().
Result<KernelObjects> move_over(const PinDir& pins, int link, Skeleton& skeleton, std::uint32_t layout,
                                const Capacity& wanted) {
        const auto attached = check_link(pins, link);
        if (!attached) {
                return std::unexpected(attached.error());
        }
        const auto before = open_earlier(pins, layout);
        if (!before) {
                return std::unexpected(before.error());
        }
        KernelObjects result;
        result.taken_up = true;
        result.earlier_layout = layout;
        result.capacity = larger(wanted, before->capacity);
        result.service_ids = std::max(before->service_ids, service_ids(result.capacity.services));
        result.lines = lines_for(result.capacity.bindings);
        skeleton.set_sizes(result.capacity, result.lines);
        auto done = check_capacity(result.capacity);
        done = done ? share_maps(*before, skeleton) : done;
        done = done ? skeleton.load() : done;
        done = done ? skeleton.keep_fds(result) : done;
        done = done ? write_header(result.fd(KernelMap::kHeader), result.capacity, result.lines, before->secrets)
                    : done;
        done = done ? copy_earlier(*before, result) : done;
        done = done ? forget_load(pins) : done;
        done = done ? pin_beside(pins, *before, result, skeleton.program(), link) : done;
        done = done ? settle_move(pins) : done;
        if (!done) {
                (void)settle_move(pins);  // what was pinned goes, where the move has not come into force
                return fail(done.error().errnum, fmt::format("cannot take what has layout {} along: {}; dispatch goes "
                                                             "on as it is",
                                                             layout, done.error().message));
        }
        return result;
}

Result<KernelObjects> take_up_or_grow(const PinDir& pins, int link, Skeleton& skeleton, const Capacity& capacity) {
        if (auto settled = settle_growth(pins); !settled) {
                return std::unexpected(settled.error());
        }
        auto found = open_pinned(pins, skeleton);
        if (!found) {
                return found;
        }
        std::string not_grown;
        if (const auto wanted = larger(capacity, found->capacity);
            wanted != found->capacity || found->service_ids < service_ids(wanted.services)) {
                auto grown = grow(pins, link, *found, wanted);
                if (grown) {
                        return grown;
                }
                // What serves goes on serving, in the maps that there are.
                not_grown = grown.error().text();
                if (auto settled = settle_growth(pins); !settled) {
                        return std::unexpected(settled.error());
                }
                found = open_pinned(pins, skeleton);  // the larger ones, where it failed after the switch
                if (!found) {
                        return found;
                }
        }
        const auto now = pins.get(kLinkPin);
        if (!now) {
                return std::unexpected(now.error());
        }
        auto taken = take_up(pins, now->get(), skeleton, std::move(*found));
        if (taken) {
                taken->not_grown = std::move(not_grown);
        }
        return taken;
}

}  // namespace

Result<KernelObjects> load_kernel_objects(const PinDir& pins, const Capacity& capacity) {
        const LibbpfLog log;
        auto skeleton = Skeleton::open();
        if (!skeleton) {
                return std::unexpected(skeleton.error());
        }
        if (auto moved = settle_move(pins); !moved) {
                return std::unexpected(moved.error());
        }
        const auto link = pins.get(kLinkPin);
        if (!link && link.error().errnum == ENOENT) {
                return make_anew(pins, *skeleton, capacity);
        }
        if (!link) {
                return std::unexpected(link.error());
        }
        const auto layout = pinned_layout(pins);
        if (!layout) {
                return std::unexpected(layout.error());
        }
        if (auto known = check_layout(pins, *layout); !known) {
                return std::unexpected(known.error());
        }
        return *layout == SB_LAYOUT ? take_up_or_grow(pins, link->get(), *skeleton, capacity)
                                    : move_over(pins, link->get(), *skeleton, *layout, capacity);
}

Result<OwnedFd> open_pinned_link(const std::string& pin_dir, const char* name) {
        const auto pins = PinDir::open(pin_dir);
        return pins ? pins->get(name) : std::unexpected(pins.error());
}

Result<void> unload_kernel_objects(const std::string& pin_dir, int link, int earlier_link) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins && pins.error().errnum != ENOENT) {
                return std::unexpected(pins.error());
        }
        // The link first: without it the rest means nothing, should this process die in between.
        if (auto removed = pins ? pins->remove(kLinkPin) : Result<void>(); !removed) {
                return removed;
        }
        // Detached, not only unpinned: whoever still has the link open must not keep dispatch alive.
        if (earlier_link >= 0) {
                (void)bpf_link_detach(earlier_link);
        }
        if (link >= 0 && bpf_link_detach(link) != 0 && errno != EINVAL) {
                const auto error = fail_errno(fmt::format("cannot detach {}/{}", pin_dir, kLinkPin));
                if (pins) {
                        (void)pins->pin(kLinkPin, link);  // a broker that serves may not, and keeps it open
                }
                return error;
        }
        return pins ? pins->clear() : Result<void>();
}

}  // namespace sockbroker
