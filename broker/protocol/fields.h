// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The lines of a message to its fields: which keys it has, and what each value says. Every value is checked here,
// alone; whether the fields fit together is for combination.h. Pure, and never trusts the text.
#pragma once

#include <array>
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

// The keys that the broker knows, in the order in which messages list them.
enum Key : std::size_t {
        kFdStore,
        kFdStoreRemove,
        kFdRetrieve,
        kFdName,
        kFdPoll,
        kBarrierKey,
        kVerbKey,
        kTimeout,
        kPid,
        kProtocol,
        kAddress,
        kPort,
        kMigrate,
        kInherit,
        kFamily,
        kFrom,
        kInterface,
        kKeys
};

[[nodiscard]] std::string_view key_name(Key key);  // "FDSTORE"

// The broker's keys of one message, each value already found good.
struct Fields {
        std::array<std::optional<std::string_view>, kKeys> values;
        std::array<unsigned, kKeys> lines{};
        std::string_view foreign;  // notify: the first key that is not ours
        Verb verb = Verb::kNothing;
        std::uint64_t timeout_usec = 0;
        std::int32_t pid = 0;
        Protocol protocol = Protocol::kTcp;
        Address address;
        std::uint16_t port = 0;
        Family family = Family::kIpv4;
        Endpoint from;

        [[nodiscard]] bool has(Key key) const { return values[key].has_value(); }
        [[nodiscard]] std::string service() const { return std::string(values[kFdName].value_or("")); }
};

// The fields of a message that came through `channel`. Views point into `text`. Malformed are a line that is not
// KEY=VALUE, a key given twice, a value that its key cannot have, and on the control socket a key that is unknown.
[[nodiscard]] std::expected<Fields, Refusal> read_fields(Channel channel, std::string_view text);

// The names of a list with colons between them, as LISTEN_FDNAMES has it.
[[nodiscard]] std::vector<std::string> split_names(std::string_view list);

[[nodiscard]] std::unexpected<Refusal> malformed(std::string message);
[[nodiscard]] std::unexpected<Refusal> no_service_name(std::string_view value);

// In quotes, cut and with everything but printable ASCII escaped: messages go to journals and terminals.
[[nodiscard]] std::string quoted(std::string_view text);

}  // namespace sockbroker
