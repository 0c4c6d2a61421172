// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a load hands to the broker that serves, as pins: the maps, and a record that all of it is whole and of which
// build. The record is removed before a load changes anything and is written last, so it is there only if everything
// belongs together. Another process wrote all this: nothing is trusted to fit.
#pragma once

#include <cstdint>
#include <string>

#include "broker/base/result.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"

struct sb_header;

namespace sockbroker {

inline constexpr const char* kLoadAnew = "load it anew: systemctl restart sockbrokerd, or sockbrokerd --load as root";

// Of the pinned map of that name. Errors: it is no map of sockbroker's. Of an earlier layout maybe: then only magic and
// layout mean what they do here.
[[nodiscard]] Result<sb_header> read_header(int fd, const std::string& path);

// The maps of this layout, with the capacity that they were made for. Needs no capability.
[[nodiscard]] Result<KernelObjects> open_pinned_maps(const PinDir& pins);

[[nodiscard]] Result<void> forget_load(const PinDir& pins);
// Makes a map, so this needs CAP_BPF. taken_up: state of an earlier broker is among what was loaded.
[[nodiscard]] Result<void> record_load(const PinDir& pins, bool taken_up);
struct Load {
        bool taken_up = false;    // for the first broker only: what one has had, the next takes up
        std::uint64_t netns = 0;  // inode of the network namespace that is served
};
// Errors: nothing is loaded, or by another build.
[[nodiscard]] Result<Load> take_load(const PinDir& pins);

}  // namespace sockbroker
