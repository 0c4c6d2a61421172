// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/label.h"

#include <fmt/format.h>

#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {

std::expected<std::string, Refusal> request_of_label(std::string_view text, bool has_fds) {
        if (!text.ends_with('#') || !valid_service_name(text.substr(0, text.size() - 1))) {
                return std::unexpected(
                        Refusal{ResultCode::kMalformed,
                                fmt::format("this socket takes SERVICE# and descriptors, where SERVICE has 1 to {} "
                                            "characters of [A-Za-z0-9._-]; all else is for the control socket",
                                            kMaxServiceName),
                                {}});
        }
        if (!has_fds) {
                return std::unexpected(Refusal{ResultCode::kMalformed,
                                               fmt::format("{} came without a descriptor; send those of the sockets to "
                                                           "register in the same message (SCM_RIGHTS)",
                                                           text),
                                               {}});
        }
        return format_request({.verb = Verb::kStore, .service = std::string(text.substr(0, text.size() - 1))});
}

std::string format_label_answer(ResultCode code, std::string_view message) {
        return code == ResultCode::kOk ? "OK" : format_result(code, message);
}

}  // namespace sockbroker
