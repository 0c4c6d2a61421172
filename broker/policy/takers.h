// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which services would take a socket that is bound to an address and a port, VERB=match. Pure. Whether they admit may
// be a question to the host: the caller goes through the candidates and asks for each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker/peer/peer.h"
#include "broker/policy/accounts.h"
#include "broker/policy/policy.h"
#include "broker/protocol/request.h"
#include "broker/protocol/result_code.h"

namespace sockbroker {

struct Taker {
        const Service* service = nullptr;
        const Binding* binding = nullptr;  // of it, the one that fits best
        unsigned rank = 0;                 // those of one rank fit equally well
};

// Each service that has a binding for it and may admit the peer, once, the best first; bindings of others are not
// looked at, since there may be a million. A single address goes to whoever packets to it would go to: the longest
// prefix, then the narrowest ports. The unspecified address means all that a service has of that family: the narrowest
// ports, then a binding of any address before the others. Sources and interfaces do not count.
[[nodiscard]] std::vector<Taker> takers(const Policy& policy, const WantedBind& bind, const Peer& peer);

// A service that has such a binding, whomever it admits, for the message of a refusal; of the first 20,000 bindings.
[[nodiscard]] const Service* find_binder(const Policy& policy, const WantedBind& bind);

// "tcp 0.0.0.0:80", for people.
[[nodiscard]] std::string describe(const WantedBind& bind);

// unknown-service for a name of the request that no policy has.
[[nodiscard]] std::optional<Refusal> unknown_names(const Policy& policy, const WantedBind& bind);

// What services that do admit the sender have instead, of those that are meant: "web, which admits the sender, has tcp
// 192.0.2.0/24:80". Of the first few, by what is known of accounts now; empty: there are none.
[[nodiscard]] std::string what_is_admitted(const Policy& policy, const WantedBind& bind, const Peer& peer,
                                           const Accounts& accounts);

// not-permitted: nobody who admits the sender takes it. `instead` is what_is_admitted(), `turned_away` what the best of
// those said that have such a binding and do not admit; either may be empty.
[[nodiscard]] Refusal no_taker(const WantedBind& bind, const std::string& instead, const std::string& turned_away);

// ambiguous: these admit the sender and fit equally well.
[[nodiscard]] Refusal too_many_takers(const WantedBind& bind, const std::vector<std::string>& names);

}  // namespace sockbroker
