// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the program hears of the broker's answers. Pure.
#pragma once

#include <string_view>

namespace sockbroker::supervise {

// The errno of bind(2) or listen(2) for a RESULT= of docs/protocol.md that is not "ok". EACCES: policy does not grant
// it; EADDRINUSE: Handover=refuse; EAGAIN: later.
[[nodiscard]] int errno_of(std::string_view result);

// What to do about it, for the person who reads the program's journal; may be empty.
[[nodiscard]] std::string_view advice(std::string_view result);

}  // namespace sockbroker::supervise
