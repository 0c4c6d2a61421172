// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "broker/audit/audit.h"
#include "broker/dataplane/kernel/notify_filter.h"
#include "broker/hands/shares.h"

namespace sockbroker {

// Whose messages to `notify` the kernel drops, because what he has sent waits to be closed; false: not any more. The
// journal has it.
void hear(NotifyFilter& filter, Audit& audit, const hands::Party& party, bool heard);

}  // namespace sockbroker
