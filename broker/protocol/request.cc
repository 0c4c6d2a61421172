// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From text to a request and back. The lines become fields (fields.h), each value checked alone; then the fields are
// judged together (combination.h). Every mistake has one message of its own (tests/data/protocol_mistakes.json lists
// them).
#include "broker/protocol/request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/protocol/combination.h"
#include "broker/protocol/fields.h"

namespace sockbroker {

Refusal refuse_truncated() {
        return {ResultCode::kMalformed,
                fmt::format("the message did not arrive whole and was dropped: at most {} bytes and {} descriptors are "
                            "taken, and none while the broker has no free descriptor",
                            kMaxMessageBytes, kMaxMessageFds),
                {}};
}

std::expected<Request, Refusal> parse_request(Channel channel, std::string_view text, std::size_t fds) {
        if (text.size() > kMaxMessageBytes || fds > kMaxMessageFds) {
                return std::unexpected(refuse_truncated());
        }
        if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
                return malformed(
                        fmt::format("the text holds a NUL byte at offset {}; send the text without its "
                                    "terminating NUL",
                                    nul));
        }
        const auto fields = read_fields(channel, text);
        if (!fields) {
                return std::unexpected(fields.error());
        }
        return to_request(channel, *fields, fds);
}

std::string format_request(const Request& request) {
        std::string text;
        switch (request.verb) {
        case Verb::kNothing:
                break;
        case Verb::kStore:
                text = "FDSTORE=1\n";
                break;
        case Verb::kRemove:
                text = "FDSTOREREMOVE=1\n";
                break;
        case Verb::kRetrieve:
                text = "FDRETRIEVE=1\n";
                break;
        case Verb::kBarrier:
                text = "BARRIER=1\n";
                break;
        default:
                text = fmt::format("VERB={}\n", verb_name(request.verb));
        }
        if (!request.service.empty()) {
                text += fmt::format("FDNAME={}\n", request.service);
        }
        if (request.verb == Verb::kHold || (request.verb == Verb::kReload && request.timeout_usec != 0)) {
                text += fmt::format("TIMEOUT_USEC={}\n", request.timeout_usec);
        }
        if (request.verb == Verb::kMatch || request.verb == Verb::kExplain) {
                const auto& bind = request.bind;
                text += fmt::format("PROTOCOL={}\nADDRESS={}\nPORT={}\n", to_string(bind.protocol),
                                    bind.at.address.to_string(), bind.at.port);
                if (!bind.services.empty()) {
                        text += fmt::format("FDNAME={}\n", fmt::join(bind.services, ":"));
                }
        }
        if (request.client.from) {
                text += fmt::format("FROM={}\n", request.client.from->to_string());
        }
        if (!request.client.interface.empty()) {
                text += fmt::format("INTERFACE={}\n", request.client.interface);
        }
        if (request.pid != 0) {
                text += fmt::format("PID={}\n", request.pid);
        }
        if (request.migrate) {
                text += "MIGRATE=1\n";
        }
        if (request.inherit) {
                text += "INHERIT=1\n";
        }
        if (request.family) {
                text += fmt::format("FAMILY={}\n", to_string(*request.family));
        }
        return text;
}

}  // namespace sockbroker
