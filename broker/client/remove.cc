// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/remove.h"

#include "broker/protocol/request.h"

namespace sockbroker {

ControlRequest RemoveOperation::next() {
        return {.request = format_request({Verb::kRemove, service_}), .fds = {}};
}

Result<Operation::Course> RemoveOperation::take(ControlAnswer& /*answer*/, std::vector<OwnedFd> /*received*/) {
        return Course{};
}

}  // namespace sockbroker
