// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/control_part.h"

#include <cerrno>

namespace sockbroker {

void take_pidfd(const cmsghdr* header, Message& message) {
        int value = -1;
        if (!read_part(header, value)) {
                return;
        }
        if (value >= 0) {
                message.pidfd.reset(value);
        } else if (value == -ESRCH || value == -EINVAL) {
                // Before 6.16 the kernel puts an errno where it cannot make a pidfd: ESRCH, and in older ones EINVAL,
                // for a sender that was reaped already.
                message.sender_gone = true;
        } else {
                // Out of descriptors. Falling back to the numeric pid would let a peer choose the weaker check.
                message.truncated = true;
        }
}

}  // namespace sockbroker
