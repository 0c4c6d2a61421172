// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who registered the socket in a slot, as the kernel's map keeps it. One system call each, so that a crash leaves an
// entry whole or as it was.
#pragma once

#include "bpf/layout.h"
#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"

namespace sockbroker {

[[nodiscard]] Result<sb_registrant> read_registrant(int map_fd, Slot slot);  // service 0: none on record
[[nodiscard]] Result<void> write_registrant(int map_fd, Slot slot, const Registrant* registrant);  // null: clears
[[nodiscard]] Registrant decode_registrant(const sb_registrant& raw);

}  // namespace sockbroker
