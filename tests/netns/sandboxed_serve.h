// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The honest half of sandboxed_service.cc.
#pragma once

#include <string>

// Serves the sockets that were passed, descriptors 3 and on, as tests/harness/service.py does: "NAME PEER PORT LOCAL
// PORT" to whoever asks. Never returns.
[[noreturn]] void serve_passed(int listeners, const std::string& name);
