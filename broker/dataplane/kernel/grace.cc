// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/grace.h"

#include <bpf/bpf.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace sockbroker {

namespace {

constexpr const char* kInnerPin = "grace_inner";
constexpr const char* kOuterPin = "grace";

}  // namespace

Result<Grace> Grace::create(bool membarrier) {
        Grace grace;
        grace.membarrier_ = membarrier;
        grace.inner_.reset(bpf_map_create(BPF_MAP_TYPE_ARRAY, "sb_grace_inner", 4, 8, 1, nullptr));
        if (!grace.inner_) {
                return fail_errno("cannot create a BPF map; the broker needs CAP_BPF at start");
        }
        LIBBPF_OPTS(bpf_map_create_opts, options, .inner_map_fd = static_cast<__u32>(grace.inner_.get()));
        grace.outer_.reset(bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "sb_grace", 4, 4, 1, &options));
        if (!grace.outer_) {
                return fail_errno("cannot create a BPF array of maps");
        }
        return grace;
}

Result<void> Grace::pin(const PinDir& pins) const {
        auto done = pins.replace(kInnerPin, inner_.get());
        return done ? pins.replace(kOuterPin, outer_.get()) : done;
}

Result<Grace> Grace::open(const PinDir& pins) {
        auto inner = pins.get(kInnerPin);
        auto outer = pins.get(kOuterPin);
        if (!inner || !outer) {
                return std::unexpected((inner ? outer : inner).error());
        }
        Grace grace;
        grace.inner_ = std::move(*inner);
        grace.outer_ = std::move(*outer);
        return grace;
}

Result<void> Grace::wait() {
        if (membarrier_ && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) {
                return {};
        }
        const std::uint32_t key = 0;
        const int value = inner_.get();
        if (bpf_map_update_elem(outer_.get(), &key, &value, BPF_ANY) != 0) {
                return fail_errno(
                        "cannot wait for running dispatch programs: membarrier(2) is refused, and so is the "
                        "update of an array of maps; allow one of them in the system call filter");
        }
        return {};
}

}  // namespace sockbroker
