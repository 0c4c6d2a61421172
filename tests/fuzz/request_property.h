// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What must hold of parse_request() for every message whatever, in one place for the fuzzer and for the mutation
// test of the unit suite.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker::test {

// Why the property is broken; empty if it holds.
inline std::string broken_property(Channel channel, std::string_view text, std::size_t fds) {
        const auto request = parse_request(channel, text, fds);
        if (!request) {
                if (request.error().code != ResultCode::kMalformed) {
                        return "a refusal that is not malformed";
                }
                if (request.error().message.empty() || request.error().message.size() > 512) {
                        return "a message of unreasonable size";
                }
                for (const char c : request.error().message) {
                        if (c < 0x20 || c > 0x7e) {
                                return "a message that holds bytes of the peer";
                        }
                }
                return {};
        }
        if (text.size() > kMaxMessageBytes || fds > kMaxMessageFds) {
                return "more than the limits was taken";
        }
        if (!request->service.empty() && !valid_service_name(request->service)) {
                return "a name that is none";
        }
        const Verb verb = request->verb;
        const bool fds_fit = verb == Verb::kStore ? fds >= 1 : verb == Verb::kBarrier ? fds == 1 : fds == 0;
        if (!fds_fit) {
                return "descriptors that the verb does not take";
        }
        if (channel == Channel::kNotify && verb > Verb::kBarrier) {
                return "a verb of control on notify";
        }
        if (channel == Channel::kControl && verb == Verb::kNothing) {
                return "a request on control that asks for nothing";
        }
        const auto again = parse_request(channel, format_request(*request), fds);
        if (!again || again->verb != verb || again->service != request->service || again->pid != request->pid ||
            again->migrate != request->migrate || again->inherit != request->inherit ||
            again->family != request->family || again->bind.at != request->bind.at ||
            again->bind.services != request->bind.services || again->client.from != request->client.from ||
            again->client.interface != request->client.interface) {
                return "no round trip";
        }
        return {};
}

}  // namespace sockbroker::test
