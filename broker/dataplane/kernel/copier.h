// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sockets from one sockmap to another, within the kernel: by a program that is never attached, so without a descriptor
// of the socket, and without its lock, which its owner may keep for as long as it likes. Needs the broker's three
// capabilities to be made and none afterwards.
#pragma once

#include <cstdint>
#include <memory>

#include "broker/base/result.h"

namespace sockbroker {

class SocketCopier {
public:
        // Descriptors of two sockmaps with values of eight bytes. It keeps duplicates of its own.
        [[nodiscard]] static Result<std::unique_ptr<SocketCopier>> load(int before, int after);
        ~SocketCopier();
        SocketCopier(const SocketCopier&) = delete;
        SocketCopier& operator=(const SocketCopier&) = delete;

        // ENOENT: no socket is there. EOPNOTSUPP: its owner has shut it down, no map takes it any more.
        [[nodiscard]] Result<void> copy(std::uint32_t from, std::uint32_t to) const;

private:
        struct State;
        explicit SocketCopier(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
};

}  // namespace sockbroker
