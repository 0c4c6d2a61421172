// SPDX-License-Identifier: LGPL-2.1-or-later
//
// seccomp user notification, seccomp_unotify(2): the filter with its listener, and the ioctls on it. By number, since
// libseccomp 2.5.4 knows no WAIT_KILLABLE_RECV.
#pragma once

#include <linux/seccomp.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "sandbox/compile.h"

namespace sockbroker::supervise {

// Installs the program for this thread and what it executes; the result is the listener. Needs no_new_privs. EBUSY: a
// supervisor of another kind has one already.
[[nodiscard]] Result<OwnedFd> install_with_listener(const sandbox::Filter::Program& program);

class Notifications {
public:
        // The listener's owner. An error if the kernel's structures are larger than any known.
        [[nodiscard]] static Result<Notifications> of(OwnedFd listener);

        [[nodiscard]] int fd() const { return listener_.get(); }

        // The next call that waits; none: the one that did is gone, or another wait is needed. Never waits long.
        [[nodiscard]] std::optional<seccomp_notif> receive();

        // Whether the thread still waits: what was read of it before was its own, not that of a successor of its pid.
        [[nodiscard]] bool is_valid(std::uint64_t id) const;

        // Ends the call with 0, or with -1 and errno.
        void answer(std::uint64_t id, int errnum);

        // Lets the kernel make the call as it stands, reading its arguments anew: for what may be made with any.
        void let_go_on(std::uint64_t id);

        // Makes `fd` the thread's descriptor `number`, which it has already.
        [[nodiscard]] Result<void> replace(std::uint64_t id, int number, int fd, bool close_on_exec);

private:
        explicit Notifications(OwnedFd listener) : listener_(std::move(listener)) {}
        void send(const seccomp_notif_resp& response);

        OwnedFd listener_;
        std::unique_ptr<char[]> request_;
        std::size_t request_size_ = 0;
        std::unique_ptr<char[]> response_;
        std::size_t response_size_ = 0;
};

}  // namespace sockbroker::supervise
