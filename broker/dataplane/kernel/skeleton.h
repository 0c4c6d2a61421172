// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The programs of this build and their maps, before they are anybody's: opened, sized, loaded. The only file beside its
// .cc that touches libbpf's skeleton of the dispatch program. Pins nothing and attaches nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/objects.h"

struct bpf_map;
struct dispatch;

namespace sockbroker {

class Skeleton {
public:
        [[nodiscard]] static Result<Skeleton> open();

        // Before load(); maps that were given to it keep the size they have.
        void set_sizes(const Capacity& capacity, std::uint32_t lines);
        // Makes the maps that were not given to it by bpf_map__reuse_fd().
        [[nodiscard]] Result<void> load();
        // Duplicates, which outlive this.
        [[nodiscard]] Result<void> keep_fds(KernelObjects& objects) const;

        [[nodiscard]] std::array<bpf_map*, kMaps> maps() const;
        [[nodiscard]] bpf_map* map(KernelMap which) const { return maps().at(static_cast<std::size_t>(which)); }
        [[nodiscard]] int program() const;  // dispatch itself; borrowed

private:
        using Owner = std::unique_ptr<dispatch, void (*)(dispatch*)>;
        explicit Skeleton(Owner skeleton) : skeleton_(std::move(skeleton)) {}

        Owner skeleton_;
};

}  // namespace sockbroker
