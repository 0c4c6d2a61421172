// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which bindings match a packet, the one that decides first. Only to name lines of the text: what really happens to a
// packet is asked of the kernel's own rules (Dataplane::explain()). Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "broker/policy/decide.h"
#include "broker/policy/policy.h"

namespace sockbroker {

struct Packet {
        Protocol protocol = Protocol::kTcp;
        Endpoint to;
        std::optional<Address> from;  // none: a client that no Source= is for
        std::uint32_t ifindex = 0;    // 0: an interface that no Interface= is for
};

struct MetBinding {
        const Service* service = nullptr;
        const Binding* binding = nullptr;
        ClientFilter client;
};

struct MetBindings {
        std::vector<MetBinding> first;  // in the order in which they are tried; what stands twice is here once
        std::size_t more = 0;           // that were left out
        // There are others that only some clients, or some interfaces, meet, and nothing is known of the packet's.
        bool depends_on_source = false;
        bool depends_on_interface = false;
};

// At most `most` bindings.
[[nodiscard]] MetBindings bindings_met(const Policy& policy, const Interfaces& interfaces, const Packet& packet,
                                       std::size_t most);

}  // namespace sockbroker
