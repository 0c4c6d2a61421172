// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the supervisor tells people, on the program's standard error: never waits for a reader, and never many.
#pragma once

#include <string_view>

namespace sockbroker::supervise {

// "sockbroker-run: MESSAGE". At most 20 lines in 10 s; more are counted and told with the next.
void say(std::string_view message);

}  // namespace sockbroker::supervise
