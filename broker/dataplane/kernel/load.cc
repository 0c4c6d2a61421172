// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How class Dataplane comes to be: loaded with capabilities, and opened without any by what the load has pinned.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <utility>

#include <fmt/format.h>

#include "broker/base/file_lock.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/earlier.h"
#include "broker/dataplane/kernel/link.h"
#include "broker/dataplane/kernel/loaded.h"
#include "broker/dataplane/kernel/notify_filter.h"
#include "broker/dataplane/kernel/state.h"

namespace sockbroker {

namespace {

constexpr const char* kStagingPin = "staging";
constexpr const char* kCopierPin = "copy";     // from the staging map into slots
constexpr const char* kParkerPin = "parking";  // within the staging map

Result<void> load_copiers(const PinDir& pins, const KernelObjects& kernel) {
        bpf_map_create_opts with_cookies{.sz = sizeof with_cookies};
        const OwnedFd staging(bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "staging", sizeof(std::uint32_t),
                                             sizeof(std::uint64_t),
                                             Dataplane::kStagingEntries + Dataplane::kParkedEntries, &with_cookies));
        if (!staging) {
                return fail_errno("cannot make the staging map");
        }
        const auto copier = SocketCopier::load(staging.get(), kernel.fd(KernelMap::kSockets));
        const auto parker = SocketCopier::load(staging.get(), staging.get());
        if (!copier || !parker) {
                return std::unexpected((copier ? parker : copier).error());
        }
        auto done = pins.replace(kStagingPin, staging.get());
        done = done ? copier->pin(pins, kCopierPin) : done;
        return done ? parker->pin(pins, kParkerPin) : done;
}

Result<void> load_grace(const PinDir& pins) {
        const auto grace = Grace::create();
        return grace ? grace->pin(pins) : std::unexpected(grace.error());
}

Result<void> check_attached(const PinDir& pins, int link, std::uint64_t netns) {
        const auto attached = check_link(pins, link, netns);
        if (!attached) {
                return std::unexpected(attached.error());
        }
        return *attached ? Result<void>{}
                         : fail(fmt::format("{} is attached nowhere: {}", pins.path_of(kLinkPin), kLoadAnew));
}

// Puts it where it belongs, unless there was an error before.
template <class T>
void take(Result<T> from, T& to, Result<void>& done) {
        if (!from) {
                done = done ? std::unexpected(from.error()) : done;
        } else if (done) {
                to = std::move(*from);
        }
}

}  // namespace

Result<Dataplane::Loaded> Dataplane::load(const std::string& pin_dir, const Capacity& capacity) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        auto kernel = load_kernel_objects(*pins, capacity);
        if (!kernel) {
                return std::unexpected(kernel.error());
        }
        auto done = pins->replace(kProbePin, kernel->probe.get());
        done = done ? pins->replace(kMigrationPin, kernel->migration.get()) : done;
        done = done ? load_grace(*pins) : done;
        done = done ? load_copiers(*pins, *kernel) : done;
        done = done ? Explainer::load(*pins, *kernel) : done;
        done = done ? UnitPrograms::load(*pins, *kernel) : done;
        const auto filter = done ? NotifyFilter::load(*pins) : done;
        done = done ? record_load(*pins, kernel->taken_up) : done;
        return done ? Result<Loaded>({.earlier_layout = kernel->earlier_layout,
                                      .not_grown = kernel->not_grown,
                                      .no_filter = filter ? "" : filter.error().text()})
                    : std::unexpected(done.error());
}

Result<std::unique_ptr<Dataplane>> Dataplane::adopt(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        const auto loaded = take_load(*pins);
        if (!loaded) {
                return std::unexpected(loaded.error());
        }
        auto state = std::make_unique<State>();
        state->pin_dir = pin_dir;
        Result<void> done;
        take(open_pinned_maps(*pins), state->kernel, done);
        state->kernel.taken_up = loaded->taken_up;
        take(pins->get(kLinkPin), state->link, done);
        done = done ? check_attached(*pins, state->link.get(), loaded->netns) : done;
        take(done ? take_earlier_link(*pins, std::move(state->kernel)) : Result<KernelObjects>(), state->kernel, done);
        take(pins->get(kProbePin), state->kernel.probe, done);
        take(pins->get(kMigrationPin), state->kernel.migration, done);
        take(Grace::open(*pins), state->grace, done);
        take(pins->get(kStagingPin), state->staging, done);
        take(SocketCopier::open(*pins, kCopierPin), state->copier, done);
        take(SocketCopier::open(*pins, kParkerPin), state->parker, done);
        take(Explainer::open(*pins), state->explainer, done);
        if (!done) {
                return std::unexpected(done.error());
        }
        const KernelObjects& objects = state->kernel;
        take(UnitPrograms::open(*pins, objects), state->unit_programs, done);
        state->idle_generation_rests = objects.taken_up;
        take(Mapping<sb_header>::create(objects.fd(KernelMap::kHeader), 1, "meta"), state->header, done);
        take(Mapping<sb_service>::create(objects.fd(KernelMap::kServices), objects.service_ids + 1, "services"),
             state->services, done);
        take(Mapping<sb_record>::create(objects.fd(KernelMap::kRecords), record_entries(objects.capacity), "records"),
             state->records, done);
        take(Mapping<sb_slot>::create(objects.fd(KernelMap::kSlots), slot_entries(objects.capacity), "slots"),
             state->slots, done);
        state->cpus = libbpf_num_possible_cpus();
        if (done && state->cpus < 1) {
                done = fail(state->cpus, "cannot find out the number of processors");
        }
        if (done && objects.earlier_link && state->header[0].generation != 0) {
                state->end_earlier();  // the broker of then was killed when it had rules
        }
        done = done ? state->rebuild() : done;
        if (!done) {
                return std::unexpected(done.error());
        }
        return std::unique_ptr<Dataplane>(new Dataplane(std::move(state)));
}

Result<std::unique_ptr<Dataplane>> Dataplane::open(const std::string& pin_dir, const Capacity& capacity) {
        auto loaded = load(pin_dir, capacity);
        if (!loaded) {
                return std::unexpected(loaded.error());
        }
        auto dataplane = adopt(pin_dir);
        if (dataplane) {
                (*dataplane)->state_->kernel.earlier_layout = loaded->earlier_layout;
                (*dataplane)->state_->kernel.not_grown = std::move(loaded->not_grown);
        }
        return dataplane;
}

Result<void> Dataplane::unload(const std::string& pin_dir) {
        const OwnedFd directory(::open(pin_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!directory) {
                return fail_errno(fmt::format("cannot open the directory of pins {}", pin_dir));
        }
        // Half of what a load pins, and half of what is left, would be in the way of the next start.
        if (const auto locked = lock_file(directory.get(), std::chrono::seconds(5)); !locked) {
                return fail(locked.error().errnum,
                            fmt::format("{} is in use, by a broker or by sockbrokerd --load: stop it, then unload",
                                        pin_dir));
        }
        const auto link = open_pinned_link(pin_dir);
        const auto earlier = open_pinned_link(pin_dir, kEarlierLinkPin);
        return unload_kernel_objects(pin_dir, link ? link->get() : -1, earlier ? earlier->get() : -1);
}

Result<void> Dataplane::unload() {
        state_->unit_programs->leave();
        return unload_kernel_objects(state_->pin_dir, state_->link.get(), state_->kernel.earlier_link.get());
}

}  // namespace sockbroker
