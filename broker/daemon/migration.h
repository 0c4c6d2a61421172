// SPDX-License-Identifier: LGPL-2.1-or-later
//
// MIGRATE=1: the migration program goes with the answer to a registration. Descriptors of the broker's own travel to
// the client here, never the other way.
#pragma once

#include "broker/daemon/answer.h"

namespace sockbroker {

// Adds a descriptor of the program to an answer that says ok. One that there is no room for is a warning: what was
// registered stays registered.
[[nodiscard]] Reply with_migration(Reply reply, int program);

}  // namespace sockbroker
