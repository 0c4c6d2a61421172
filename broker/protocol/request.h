// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The bytes of one message to a Request. Pure: no system calls, never trusts what the text says of its
// sender, bounded by kMaxMessageBytes and kMaxMessageFds. Fuzzed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/protocol/result_code.h"
#include "broker/protocol/verb.h"

namespace sockbroker {

inline constexpr std::size_t kMaxMessageBytes = 4096;
inline constexpr std::size_t kMaxMessageFds = 253;  // SCM_MAX_FD of the kernel
inline constexpr std::uint64_t kMaxHoldUsec = std::uint64_t{12} * 3600 * 1'000'000;

// What VERB=match asks of: a socket that is to be bound there, for one of these services; none: for any.
struct WantedBind {
        Protocol protocol = Protocol::kTcp;
        Endpoint at;
        std::vector<std::string> services;
};

// Whose packet VERB=explain asks about, beside where it goes.
struct AskingClient {
        std::optional<Endpoint> from;  // of the family of the address that is asked
        std::string interface;         // where it comes in; empty: not said
};

struct Request {
        Verb verb = Verb::kNothing;
        std::string service;             // FDNAME=, empty where none was given
        std::uint64_t timeout_usec = 0;  // TIMEOUT_USEC= of VERB=hold and VERB=reload, at most kMaxHoldUsec
        std::int32_t pid = 0;            // PID= of FDSTORE=, FDRETRIEVE=, VERB=match, VERB=prepare; 0: the sender's own
        WantedBind bind = {};            // of VERB=match; of VERB=explain protocol and where it goes
        bool migrate = false;            // MIGRATE=1 beside FDSTORE=1: the migration program with the answer
        bool inherit = false;            // INHERIT=1 there: what the service has already keeps its place
        std::optional<Family> family = {};  // FAMILY= there: the one that a dual-stack socket serves; none: both
        AskingClient client = {};           // of VERB=explain
};

// `fds` is the number of descriptors that came with the message. A refusal is always kMalformed.
[[nodiscard]] std::expected<Request, Refusal> parse_request(Channel channel, std::string_view text, std::size_t fds);

// The text of a request, as a client sends it: parse_request() of it gives the same request.
[[nodiscard]] std::string format_request(const Request& request);

// The answer to a Message that is marked truncated; parse_request() says the same of too long a text.
[[nodiscard]] Refusal refuse_truncated();

}  // namespace sockbroker
