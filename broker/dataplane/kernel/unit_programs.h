// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The programs of bpf/answer.bpf.c in cgroups of units (UdpReply=original). A link for each, pinned beside the maps
// under the cgroup's id, so that answers leave from the asked address while no broker runs. A descriptor of one is kept
// only until the programs of an earlier layout give way: a broker that runs may open no pin any more. Knows cgroups by
// descriptor and id, not which unit may have the programs.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

class UnitPrograms {
public:
        static constexpr std::size_t kMaxUnits = 1024;  // cgroups, in all
        // Of one name: its lives before this one stay for as long as sockets that were made in them. So no unit that
        // restarts and has its sockets kept elsewhere takes the places of all.
        static constexpr std::size_t kMaxLives = 64;
        static constexpr std::size_t kMaxPorts = 32;
        static constexpr std::size_t kPrograms = 4;

        struct Unit {
                std::string name;
                std::vector<std::uint16_t> ports;  // of UDP, which it may bind on loopback; at most kMaxPorts

                bool operator==(const Unit&) const = default;
        };

        // Loads the programs of this build and pins them. Needs the broker's three capabilities.
        [[nodiscard]] static Result<void> load(const PinDir& pins, const KernelObjects& objects);
        // Puts those into the links that are pinned; while the rules of an earlier layout are in force that is left to
        // take_over(). Links of cgroups that are gone, and those that a broker was killed over, are removed. Needs no
        // capability.
        [[nodiscard]] static Result<std::unique_ptr<UnitPrograms>> open(const PinDir& pins,
                                                                        const KernelObjects& objects);

        // From now on dispatch notes what these programs read, and not what those of the earlier layout do. May run in
        // any thread.
        void take_over();
        // For an unload: what is open still would keep the programs where they are.
        void leave();

        // `cgroup` is a descriptor of its directory, `id` its inode. Where the programs are there already only what is
        // said of the unit changes. On failure none are there.
        [[nodiscard]] Result<void> attach(int cgroup, std::uint64_t id, const Unit& unit);
        [[nodiscard]] Result<void> describe(std::uint64_t id, const Unit& unit);  // of one that has them
        void detach(std::uint64_t id);
        // Forgets cgroups that are gone, with all sockets that were made in them.
        void drop_gone();

        [[nodiscard]] const std::map<std::uint64_t, Unit>& attached() const { return attached_; }

private:
        using Links = std::array<OwnedFd, kPrograms>;

        explicit UnitPrograms(PinDir pins) : pins_(std::move(pins)) {}
        [[nodiscard]] Result<void> take_up(bool earlier);
        [[nodiscard]] std::optional<Links> open_links(std::uint64_t id) const;
        [[nodiscard]] bool update_links(const Links& links) const;
        [[nodiscard]] bool is_gone(std::uint64_t id) const;
        void remove_pins(std::uint64_t id);

        PinDir pins_;
        std::array<OwnedFd, kPrograms> programs_;
        OwnedFd units_;
        std::map<std::uint64_t, Unit> attached_;
        std::mutex earlier_mutex_;
        std::map<std::uint64_t, Links> earlier_;  // which have programs of an earlier layout
};

}  // namespace sockbroker
