// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/unit_programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "answer.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

static_assert(UnitPrograms::kMaxPorts == SB_UNIT_PORTS);

namespace {

struct Hook {
        const char* name;
        bpf_attach_type type;
};
// What the kernel keeps for each cgroup, and with it the ports, is made with the first of them.
constexpr std::array<Hook, UnitPrograms::kPrograms> kHooks{{{"bind4", BPF_CGROUP_INET4_BIND},
                                                            {"bind6", BPF_CGROUP_INET6_BIND},
                                                            {"sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
                                                            {"sendmsg6", BPF_CGROUP_UDP6_SENDMSG}}};

constexpr std::string_view kPrefix = "cgroup_";

// A bpffs takes no dots in names.
std::string pin_of(std::uint64_t id, const Hook& hook) {
        return fmt::format("{}{:016x}_{}", kPrefix, id, hook.name);
}

std::string program_pin(const Hook& hook) {
        return fmt::format("answer_{}", hook.name);
}

std::optional<std::uint64_t> id_of(std::string_view pin) {
        if (!pin.starts_with(kPrefix)) {
                return std::nullopt;
        }
        pin.remove_prefix(kPrefix.size());
        std::uint64_t id = 0;
        const auto [end, error] = std::from_chars(pin.data(), pin.data() + pin.size(), id, 16);
        return error == std::errc{} && end != pin.data() ? std::optional(id) : std::nullopt;
}

UnitPrograms::Unit decode(const sb_unit& raw) {
        UnitPrograms::Unit unit{.name = std::string(raw.unit, strnlen(raw.unit, sizeof raw.unit)), .ports = {}};
        std::ranges::copy_if(raw.port, std::back_inserter(unit.ports), [](std::uint16_t port) { return port != 0; });
        return unit;
}

sb_unit encode(const UnitPrograms::Unit& unit) {
        sb_unit raw{};
        std::copy_n(unit.name.begin(), std::min(unit.name.size(), sizeof raw.unit - 1), raw.unit);
        std::copy_n(unit.ports.begin(), std::min<std::size_t>(unit.ports.size(), SB_UNIT_PORTS), raw.port);
        return raw;
}

}  // namespace

Result<void> UnitPrograms::load(const PinDir& pins, const KernelObjects& objects) {
        const LibbpfLog log;
        const std::unique_ptr<::answer, void (*)(::answer*)> skeleton(answer__open(), answer__destroy);
        if (!skeleton) {
                return fail_errno("cannot open the programs for answers over UDP");
        }
        if (bpf_map__reuse_fd(skeleton->maps.header, objects.fd(KernelMap::kHeader)) != 0 ||
            bpf_map__reuse_fd(skeleton->maps.replies, objects.fd(KernelMap::kReplies)) != 0 ||
            bpf_map__reuse_fd(skeleton->maps.answered, objects.fd(KernelMap::kAnswered)) != 0 ||
            bpf_map__reuse_fd(skeleton->maps.units, objects.fd(KernelMap::kUnits)) != 0 ||
            answer__load(skeleton.get()) != 0) {
                return fail_errno(fmt::format("cannot load the programs for answers over UDP: {}", LibbpfLog::tail()));
        }
        const std::array<bpf_program*, kPrograms> loaded{skeleton->progs.bind4, skeleton->progs.bind6,
                                                         skeleton->progs.sendmsg4, skeleton->progs.sendmsg6};
        for (std::size_t i = 0; i < kPrograms; i++) {
                if (auto pinned = pins.replace(program_pin(kHooks.at(i)).c_str(), bpf_program__fd(loaded.at(i)));
                    !pinned) {
                        return pinned;
                }
        }
        return {};
}

Result<std::unique_ptr<UnitPrograms>> UnitPrograms::open(const PinDir& pins, const KernelObjects& objects) {
        std::unique_ptr<UnitPrograms> result(new UnitPrograms(pins));
        for (std::size_t i = 0; i < kPrograms; i++) {
                auto program = pins.get(program_pin(kHooks.at(i)).c_str());
                if (!program) {
                        return std::unexpected(program.error());
                }
                result->programs_.at(i) = std::move(*program);
        }
        result->units_.reset(fcntl(objects.fd(KernelMap::kUnits), F_DUPFD_CLOEXEC, 3));
        if (!result->units_) {
                return fail_errno("cannot keep the map of units");
        }
        if (auto taken = result->take_up(static_cast<bool>(objects.earlier_link)); !taken) {
                return std::unexpected(taken.error());
        }
        return result;
}

Result<void> UnitPrograms::take_up(bool earlier) {
        const auto names = pins_.names();
        if (!names) {
                return std::unexpected(names.error());
        }
        std::set<std::uint64_t> found;
        for (const auto& name : *names) {
                if (const auto id = id_of(name)) {
                        found.insert(*id);
                }
        }
        for (const auto id : found) {
                sb_unit raw{};
                auto links = open_links(id);
                if (!links || bpf_map_lookup_elem(units_.get(), &id, &raw) != 0 || raw.unit[0] == '\0' ||
                    (!earlier && !update_links(*links))) {
                        remove_pins(id);
                        continue;
                }
                attached_.emplace(id, decode(raw));
                if (earlier) {
                        earlier_.emplace(id, std::move(*links));
                }
        }
        return {};
}

// One that is missing: a broker was killed before it had all of them.
std::optional<UnitPrograms::Links> UnitPrograms::open_links(std::uint64_t id) const {
        Links links;
        for (std::size_t i = 0; i < kPrograms; i++) {
                auto link = pins_.get(pin_of(id, kHooks.at(i)).c_str());
                if (!link) {
                        return std::nullopt;
                }
                links.at(i) = std::move(*link);
        }
        return links;
}

bool UnitPrograms::update_links(const Links& links) const {
        for (std::size_t i = 0; i < kPrograms; i++) {
                if (bpf_link_update(links.at(i).get(), programs_.at(i).get(), nullptr) != 0) {
                        return false;
                }
        }
        return true;
}

void UnitPrograms::take_over() {
        const std::scoped_lock lock(earlier_mutex_);
        for (const auto& [id, links] : earlier_) {
                (void)update_links(links);  // fails for a cgroup that is gone
        }
        earlier_.clear();
}

void UnitPrograms::leave() {
        const std::scoped_lock lock(earlier_mutex_);
        earlier_.clear();
}

Result<void> UnitPrograms::attach(int cgroup, std::uint64_t id, const Unit& unit) {
        if (attached_.contains(id)) {
                return describe(id, unit);
        }
        if (attached_.size() >= kMaxUnits) {
                return fail(ENOSPC,
                            fmt::format("the programs for answers over UDP are in {} units already, and that is "
                                        "as many as there may be",
                                        kMaxUnits));
        }
        const auto is_same = [&](const auto& entry) { return entry.second.name == unit.name; };
        if (static_cast<std::size_t>(std::ranges::count_if(attached_, is_same)) >= kMaxLives) {
                return fail(ENOSPC,
                            fmt::format("{} has the programs in {} cgroups already, one for each time that it was "
                                        "started: somebody keeps sockets of them open",
                                        unit.name, kMaxLives));
        }
        const auto fail_here = [&](Error error) {
                remove_pins(id);
                return std::unexpected(std::move(error));
        };
        remove_pins(id);
        for (std::size_t i = 0; i < kPrograms; i++) {
                const Hook& hook = kHooks.at(i);
                const OwnedFd link(bpf_link_create(programs_.at(i).get(), cgroup, hook.type, nullptr));
                if (!link) {
                        const int error = errno;
                        return fail_here(Error{
                                .errnum = error,
                                .message = fmt::format("cannot attach {} to the cgroup of {}{}", hook.name, unit.name,
                                                       error == EPERM ? "; a program that does not allow "
                                                                        "others is attached above it"
                                                                      : "")});
                }
                if (auto pinned = pins_.pin(pin_of(id, hook).c_str(), link.get()); !pinned) {
                        return fail_here(pinned.error());
                }
                if (i == 0) {
                        if (auto told = describe(id, unit); !told) {
                                return fail_here(told.error());
                        }
                }
        }
        attached_.emplace(id, unit);
        return {};
}

Result<void> UnitPrograms::describe(std::uint64_t id, const Unit& unit) {
        const auto known = attached_.find(id);
        if (known != attached_.end() && known->second == unit) {
                return {};
        }
        const auto raw = encode(unit);
        if (bpf_map_update_elem(units_.get(), &id, &raw, BPF_ANY) != 0) {
                return fail_errno(fmt::format("cannot say which ports {} may bind", unit.name));
        }
        if (known != attached_.end()) {
                known->second = unit;
        }
        return {};
}

void UnitPrograms::detach(std::uint64_t id) {
        const sb_unit nobody{};
        (void)bpf_map_update_elem(units_.get(), &id, &nobody, BPF_ANY);  // what is not there any more needs none
        remove_pins(id);
        attached_.erase(id);
}

// The kernel frees what it keeps for a cgroup when its directory is gone, and the last socket that was made in it.
bool UnitPrograms::is_gone(std::uint64_t id) const {
        sb_unit raw{};
        return bpf_map_lookup_elem(units_.get(), &id, &raw) != 0 && errno == ENOENT;
}

void UnitPrograms::drop_gone() {
        std::erase_if(attached_, [&](const auto& entry) {
                const bool gone = is_gone(entry.first);
                if (gone) {
                        remove_pins(entry.first);
                }
                return gone;
        });
}

void UnitPrograms::remove_pins(std::uint64_t id) {
        {
                const std::scoped_lock lock(earlier_mutex_);
                earlier_.erase(id);
        }
        for (const Hook& hook : kHooks) {
                (void)pins_.remove(pin_of(id, hook).c_str());  // the next start tries again
        }
}

}  // namespace sockbroker
