// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Text of others made fit for one line of a terminal or a log. Policies, unit names and messages of peers pass
// through here before a person sees them, so that none of them can start a line of its own or drive the terminal.
#pragma once

#include <string>
#include <string_view>

namespace sockbroker {

// Bytes that are no UTF-8, control characters (C0, DEL, C1) and what has no shape of its own but changes how the text
// around it is shown (Unicode's categories Cf, Zl and Zp: U+202E and its like) become \xNN; all else stays as it is.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace sockbroker
