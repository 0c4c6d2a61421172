// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fields of a message to a request: which keys go together, which exclude each other, and how many descriptors each
// combination takes. Pure.
#pragma once

#include <cstddef>
#include <expected>

#include "broker/protocol/fields.h"
#include "broker/protocol/request.h"

namespace sockbroker {

// `fds` is the number of descriptors that came with the message. A refusal is always kMalformed.
[[nodiscard]] std::expected<Request, Refusal> to_request(Channel channel, const Fields& fields, std::size_t fds);

}  // namespace sockbroker
