// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/dataplane.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/base/event.h"
#include "broker/dataplane/compile/compile.h"
#include "broker/dataplane/kernel/link.h"
#include "broker/dataplane/kernel/mapping.h"
#include "broker/dataplane/kernel/registrants.h"
#include "broker/dataplane/kernel/service_counters.h"
#include "broker/dataplane/kernel/state.h"
#include "broker/dataplane/kernel/targets.h"
#include "broker/dataplane/kernel/test_run.h"

namespace sockbroker {

Dataplane::Dataplane(std::unique_ptr<State> state) : state_(std::move(state)) {}
Dataplane::~Dataplane() = default;

std::uint32_t Dataplane::layout_version() {
        return SB_LAYOUT;
}

bool Dataplane::taken_up() const {
        return state_->kernel.taken_up;
}

const Capacity& Dataplane::capacity() const {
        return state_->kernel.capacity;
}

bool Dataplane::is_attached() const {
        return netns() != std::optional<std::uint64_t>(0);
}

std::optional<std::uint64_t> Dataplane::netns() const {
        return attached_netns(state_->link.get());
}

bool Dataplane::is_pinned() const {
        return access((state_->pin_dir + "/" + kLinkPin).c_str(), F_OK) == 0 || errno != ENOENT;
}

const std::string& Dataplane::pin_dir() const {
        return state_->pin_dir;
}

std::uint32_t Dataplane::earlier_layout() const {
        return state_->kernel.earlier_layout;
}

bool Dataplane::earlier_rules() const {
        return static_cast<bool>(state_->kernel.earlier_link);
}

const std::string& Dataplane::not_grown() const {
        return state_->kernel.not_grown;
}

// Touches nothing that registrations touch, so a reload may run in a thread of its own.
Result<void> Dataplane::set_rules(const std::vector<Rule>& rules) {
        State& state = *state_;
        const KernelObjects& kernel = state.kernel;
        if (rules.size() > kernel.capacity.bindings) {
                return fail(ENOSPC, fmt::format("cannot load {} bindings: the kernel's maps were made for {}; raise "
                                                "MaxBindings= in sockbrokerd.conf and restart sockbrokerd",
                                                rules.size(), kernel.capacity.bindings));
        }
        if (state.idle_generation_rests) {
                if (auto waited = state.grace.wait(); !waited) {
                        return waited;
                }
                state.idle_generation_rests = false;
        }
        const std::uint32_t idle = state.header[0].generation == 0 ? 1 : 0;
        const auto arena =
                Mapping<sb_line>::create(kernel.fd(KernelMap::kArena), std::size_t{2} * kernel.lines, "arena");
        if (!arena) {
                return std::unexpected(arena.error());
        }
        const auto tables = Mapping<sb_table>::create(kernel.fd(KernelMap::kTables), 8, "tables");
        if (!tables) {
                return std::unexpected(tables.error());
        }
        // Straight into the idle generation: what a failure leaves there is read by nobody.
        const auto compiled = compile_into(rules, {arena->data() + std::size_t{idle} * kernel.lines, kernel.lines},
                                           std::span<sb_table, 4>(tables->data() + std::size_t{idle} * 4, 4));
        if (!compiled) {
                return std::unexpected(compiled.error());
        }
        std::atomic_ref(state.header[0].generation).store(idle, std::memory_order_release);
        // The new rules are in force: nothing from here on is a failure of the switch. What has not waited waits the
        // next time.
        state.idle_generation_rests = true;
        (void)succeeds([&] { state.idle_generation_rests = !state.grace.wait().has_value(); });
        if (state.kernel.earlier_link) {
                (void)succeeds([&] { state.end_earlier(); });
        }
        return {};
}

const std::vector<std::string>& Dataplane::service_names() const {
        return state_->names;
}

Result<ServiceId> Dataplane::add_service(std::string_view name) {
        State& state = *state_;
        if (name.empty() || name.size() >= SB_NAME_BYTES) {
                return fail(fmt::format("cannot add service {}: a name has 1 to {} bytes", name, SB_NAME_BYTES - 1));
        }
        if (const auto known = state.ids.find(name); known != state.ids.end()) {
                return known->second;
        }
        // What may want memory comes first. Of an id whose name only the kernel has the next broker would think that it
        // is the service's.
        std::map<std::string, ServiceId, std::less<>> known;
        auto named = known.extract(known.emplace(name, 0).first);
        std::string text(name);
        const std::vector<sb_counters> zero(static_cast<std::size_t>(state.cpus));
        const auto id = state.take(state.free_services, "id of a service");
        if (!id) {
                return fail(id.error().errnum,
                            fmt::format("cannot add service {}: {}; the kernel's maps were made for {} "
                                        "services, raise MaxServices= in sockbrokerd.conf and restart "
                                        "sockbrokerd",
                                        name, id.error().message, capacity().services));
        }
        // Cleared here, not at the removal: a program that was running then may have counted on.
        sb_name entry{};
        std::copy(name.begin(), name.end(), entry.text);
        if (bpf_map_update_elem(state.kernel.fd(KernelMap::kCounters), &*id, zero.data(), BPF_ANY) != 0 ||
            bpf_map_update_elem(state.kernel.fd(KernelMap::kNames), &*id, &entry, BPF_ANY) != 0) {
                const int error = errno;
                state.free_services.add_free(*id);
                return fail(error, fmt::format("cannot add service {} to the kernel's maps", name));
        }
        std::atomic_ref(state.services[*id].crossed).store(0, std::memory_order_relaxed);
        state.names[*id] = std::move(text);
        named.mapped() = *id;
        state.ids.insert(std::move(named));
        return *id;
}

void Dataplane::remove_service(ServiceId id) {
        State& state = *state_;
        if (!state.valid(id)) {
                return;
        }
        const std::vector<sb_counters> zero(static_cast<std::size_t>(state.cpus));  // may want memory, and this:
        state.switch_record(id, 0, 0);
        const sb_name empty{};
        // Neither can fail for an index within an array.
        (void)bpf_map_update_elem(state.kernel.fd(KernelMap::kCounters), &id, zero.data(), BPF_ANY);
        (void)bpf_map_update_elem(state.kernel.fd(KernelMap::kNames), &id, &empty, BPF_ANY);
        state.ids.erase(state.names[id]);
        state.names[id].clear();
        state.free_services.retire(id);
}

Result<void> Dataplane::set_registrant(Slot slot, const Registrant& registrant) {
        if (registrant.gone_usec != 0 && slot < state_->slot_used.size()) {
                state_->forget_flows(slot);  // nobody reads there: they go to whoever does
        }
        return write_registrant(state_->kernel.fd(KernelMap::kRegistrants), slot, &registrant);
}

// `put` puts the socket into the slot that it is given, and leaves it empty where it fails.
template <class Put>
Result<Slot> Dataplane::install_by(const Registrant& registrant, Put put) {
        State& state = *state_;
        const KernelObjects& kernel = state.kernel;
        if (registrant.service == 0) {
                return fail(EINVAL, "cannot install a socket of no service");
        }
        if (state.slots_in_use >= state.most_sockets) {
                return fail(EBUSY,
                            fmt::format("all {} slots for sockets are taken; raise MaxSockets= in sockbrokerd.conf "
                                        "and restart sockbrokerd",
                                        state.most_sockets));
        }
        const auto slot = state.take(state.free_slots, "slot for a socket");
        if (!slot) {
                return std::unexpected(slot.error());
        }
        Result<void> done = write_registrant(kernel.fd(KernelMap::kRegistrants), *slot, &registrant);
        if (done) {
                state.take_slot(*slot, registrant.service);
                done = put(*slot);
                if (!done) {
                        state.leave_slot(*slot);
                        (void)write_registrant(kernel.fd(KernelMap::kRegistrants), *slot, nullptr);
                }
        }
        if (!done) {
                state.free_slots.add_free(*slot);  // it was never named
                return std::unexpected(done.error());
        }
        state.slot_used[*slot] = true;
        state.slots_in_use++;
        return *slot;
}

Result<Slot> Dataplane::install(int fd, const Registrant& registrant) {
        return install_by(registrant, [&](Slot slot) -> Result<void> {
                const std::uint64_t value = static_cast<std::uint64_t>(fd);
                if (bpf_map_update_elem(state_->kernel.fd(KernelMap::kSockets), &slot, &value, BPF_NOEXIST) != 0) {
                        return fail_errno(fmt::format("cannot put the socket {} into the socket map",
                                                      registrant.bound.to_string()));
                }
                return {};
        });
}

int Dataplane::staging_fd() const {
        return state_->staging.get();
}

Result<Parking::Place> Dataplane::park(std::uint32_t entry) {
        auto place = state_->parking.take();
        if (!place) {
                return fail(EBUSY, "all entries for sockets that wait are in use");
        }
        if (auto copied = state_->parker.copy(entry, place->entry()); !copied) {
                return std::unexpected(copied.error());
        }
        return std::move(*place);
}

Result<Slot> Dataplane::install_staged(std::uint32_t entry, const Registrant& registrant) {
        return install_by(registrant, [&](Slot slot) -> Result<void> {
                if (auto copied = state_->copier.copy(entry, slot); !copied) {
                        return copied;
                }
                // Whoever writes to the staging map may have put another one there since it was looked at. Nobody else
                // writes to the slot.
                if (cookie(slot) != registrant.cookie) {
                        (void)bpf_map_delete_elem(state_->kernel.fd(KernelMap::kSockets), &slot);
                        return fail(ENOENT, fmt::format("the socket {} is not in the staging map any more",
                                                        registrant.bound.to_string()));
                }
                return {};
        });
}

void Dataplane::limit_sockets(std::uint32_t most) {
        state_->most_sockets = std::min(most, state_->kernel.capacity.sockets);
}

std::uint32_t Dataplane::free_slots() const {
        return state_->most_sockets - std::min(state_->most_sockets, state_->slots_in_use);
}

Result<void> Dataplane::set_targets(ServiceId id, const Targets& targets) {
        State& state = *state_;
        if (!state.valid(id)) {
                return fail(EINVAL, fmt::format("cannot set the sockets of service {}: no such id", id));
        }
        bool any = false;
        for (const auto& families : targets.slots) {
                for (const auto& slots : families) {
                        if (slots.size() > (targets.share ? kMaxShared : kReserveDepth)) {
                                return fail(EINVAL, fmt::format("cannot set {} sockets of service {}: too many",
                                                                slots.size(), state.names[id]));
                        }
                        for (const Slot slot : slots) {
                                if (slot == 0 || slot >= state.slot_used.size() || !state.slot_used[slot]) {
                                        return fail(EINVAL, fmt::format("cannot set the sockets of service {}: slot {} "
                                                                        "holds none",
                                                                        state.names[id], slot));
                                }
                        }
                        any = any || !slots.empty();
                }
        }
        if (!any) {
                state.switch_record(id, 0, 0);  // record 0 is empty for ever
                return {};
        }
        // Whatever ends this before the switch, want of memory too, gives back what nothing names.
        struct Fresh {
                Recycler& from;
                std::vector<std::uint32_t> records;

                explicit Fresh(Recycler& f) : from(f) {}
                Fresh(const Fresh&) = delete;
                Fresh& operator=(const Fresh&) = delete;
                ~Fresh() {
                        for (const auto record : records) {
                                from.add_free(record);
                        }
                }
        } fresh(state.free_records);
        fresh.records.reserve(records_for(targets));
        for (std::size_t i = records_for(targets); i > 0; i--) {
                const auto record = state.take(state.free_records, "record of a service's sockets");
                if (!record) {
                        return std::unexpected(record.error());
                }
                fresh.records.push_back(*record);
        }
        write_records(targets, fresh.records, state.all_records());
        state.switch_record(id, fresh.records.front(), newest_of(targets));
        fresh.records.clear();
        return {};
}

Targets Dataplane::targets(ServiceId id) const {
        return state_->valid(id) ? read_records(state_->services[id].record, state_->all_records()) : Targets{};
}

void Dataplane::remove(Slot slot) {
        State& state = *state_;
        if (slot == 0 || slot >= state.slot_used.size() || !state.slot_used[slot]) {
                return;
        }
        state.leave_slot(slot);
        (void)bpf_map_delete_elem(state.kernel.fd(KernelMap::kSockets), &slot);  // fails where it has left by itself
        (void)write_registrant(state.kernel.fd(KernelMap::kRegistrants), slot, nullptr);  // an index within an array
        state.slot_used[slot] = false;
        state.slots_in_use--;
        state.free_slots.retire(slot);
}

std::optional<std::uint64_t> Dataplane::cookie(Slot slot) const {
        std::uint64_t value = 0;
        if (slot == 0 || bpf_map_lookup_elem(state_->kernel.fd(KernelMap::kSockets), &slot, &value) != 0) {
                return std::nullopt;
        }
        return value;
}

bool Dataplane::takes_lookups(Slot slot, Protocol protocol, Family family) const {
        bpf_sk_lookup context{};
        context.family = family == Family::kIpv4 ? AF_INET : AF_INET6;
        context.protocol = protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        (family == Family::kIpv4 ? context.remote_ip4 : context.remote_ip6[0]) = slot;
        const auto run = test_run(state_->kernel.probe.get(), context);
        return run && run->cookie != 0;
}

UnitPrograms& Dataplane::unit_programs() {
        return *state_->unit_programs;
}

Result<Explained> Dataplane::explain(const LookUp& look_up) const {
        return state_->explainer.run(look_up);
}

std::vector<std::pair<Slot, Registrant>> Dataplane::registrants() const {
        std::vector<std::pair<Slot, Registrant>> result;
        for (Slot slot = 1; slot < state_->slot_used.size(); slot++) {
                if (!state_->slot_used[slot]) {
                        continue;
                }
                if (const auto raw = read_registrant(state_->kernel.fd(KernelMap::kRegistrants), slot)) {
                        result.emplace_back(slot, decode_registrant(*raw));
                }
        }
        return result;
}

int Dataplane::migration_program() const {
        return state_->kernel.migration.get();
}

ServiceCounters Dataplane::counters(ServiceId id) const {
        if (!state_->valid(id)) {
                return {};
        }
        ServiceCounters sum = read_counters(state_->kernel.fd(KernelMap::kCounters), id, state_->cpus);
        sum.crossed = std::atomic_ref(state_->services[id].crossed).load(std::memory_order_relaxed);
        return sum;
}

}  // namespace sockbroker
