// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What another policy changes, as a person reads it: rows of diff, and those of reload that have a `kind`. Pure.
#pragma once

#include <string>

#include "broker/ctl/render.h"

namespace sockbroker::ctl {

// A line as diff(1) would begin it: + and - for bindings, ~ for what changes, ! for what is taken away.
[[nodiscard]] std::string describe_change(const Json& row);

}  // namespace sockbroker::ctl
