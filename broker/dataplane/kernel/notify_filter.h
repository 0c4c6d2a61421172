// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Keeps messages of some users and groups out of the queue of `notify`, which all senders share: the kernel drops them
// at their senders (bpf/notify.bpf.c). Needs the broker's capabilities in load() and none afterwards.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

class NotifyFilter {
public:
        // Loads the program and pins it. Errors: the kernel has no description of its types (BTF), say.
        [[nodiscard]] static Result<void> load(const PinDir& pins);
        // Everybody is heard. Errors: it was not loaded.
        [[nodiscard]] static Result<NotifyFilter> open(const std::string& pin_dir);

        // For as long as the socket is there, with this broker or without; instead of the filter of an earlier one.
        [[nodiscard]] Result<void> attach(int socket) const;

        void silence(uid_t uid) noexcept;
        // How many messages of this user were dropped.
        std::uint64_t hear(uid_t uid) noexcept;
        void silence_group(const std::string& name) noexcept;
        std::uint64_t hear_group(const std::string& name) noexcept;

        // A user's slice, else a unit (bpf/sender.h), in which this user was when he sent what has just come. Empty:
        // none, or not known.
        [[nodiscard]] std::string group_of(uid_t uid) const;

private:
        OwnedFd program_;
        OwnedFd unheard_;
        OwnedFd unheard_groups_;
        OwnedFd groups_;
};

}  // namespace sockbroker
