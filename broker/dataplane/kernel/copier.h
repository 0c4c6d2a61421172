// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets from one sockmap to another, within the kernel: by a program that is never attached, so without a descriptor
// of the socket, and without its lock, which its owner may keep for as long as it likes. Needs the broker's three
// capabilities in load() and none afterwards.
#pragma once

#include <cstdint>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/kernel/mapping.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

class SocketCopier {
public:
        // Descriptors of two sockmaps with values of eight bytes.
        [[nodiscard]] static Result<SocketCopier> load(int before, int after);
        // One that was pinned under the name.
        [[nodiscard]] static Result<SocketCopier> open(const PinDir& pins, const char* name);
        [[nodiscard]] Result<void> pin(const PinDir& pins, const char* name) const;

        // ENOENT: the slot is empty. EOPNOTSUPP: the socket was shut down, and no sockmap takes such a listener.
        [[nodiscard]] Result<void> copy(std::uint32_t from, std::uint32_t to) const;

private:
        [[nodiscard]] Result<void> map();

        OwnedFd program_;
        OwnedFd result_;  // the program's one variable, as a map
        Mapping<std::int64_t> error_;
};

}  // namespace sockbroker
