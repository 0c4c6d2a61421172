// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The registration of tubular's clients, as udpgrm sends it: a record "LABEL#" with descriptors beside it, and "OK" as
// the answer. Here the label is the name of a service. Pure.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "broker/protocol/result_code.h"

namespace sockbroker {

// The same request in the words of the control socket. Refusals are in the words of this one.
[[nodiscard]] std::expected<std::string, Refusal> request_of_label(std::string_view text, bool has_fds);

// Anything but "OK" is a refusal to such a client: it gets what the control socket would have answered.
[[nodiscard]] std::string format_label_answer(ResultCode code, std::string_view message);

}  // namespace sockbroker
