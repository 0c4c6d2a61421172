// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A message as it stands before the broker: what was peeked at, what of it was decided on the way, and what a hand has
// found in it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/dataplane/parking.h"
#include "broker/hands/crew.h"
#include "broker/peer/peer.h"
#include "broker/policy/decide.h"
#include "broker/protocol/message.h"
#include "broker/protocol/result_code.h"
#include "broker/socket/facts.h"

namespace sockbroker {

class InHolder;

// One descriptor that came with it.
struct Arrived {
        SocketFacts facts;
        std::uint32_t entry = 0;  // of the staging map, where it stands if errnum is 0
        int errnum = 0;           // why it could not be offered to the kernel
};

struct Incoming : Message {
        std::optional<uid_t> connected_by;  // whose connection it came on

        // Asked once, though before the descriptors are taken and after it.
        bool counted = false;
        std::optional<Refusal> over_rate;
        std::optional<std::expected<Peer, Refusal>> identified;
        bool pid_not_believed = false;  // where that is a refusal: for its PID=
        // What policy said, and which one: it counts only while that is in force.
        std::optional<std::expected<Admission, Refusal>> verdict;
        std::shared_ptr<const Policy> judged_by;

        std::optional<Refusal> malformed;  // found before it is parsed
        std::optional<Refusal> not_taken;  // no hand has come back with its descriptors, or they have no place to wait
        std::size_t count = 0;             // of descriptors
        std::vector<Arrived> arrived;      // one for each, where they were looked at
        std::vector<Parking::Place> parked;  // where they stand while it waits
        bool settled = false;                // nobody needs the staging map any more for it
        bool answered = false;
        // What a holder has kept of it: what of that is not held when nobody needs the message any more is given up.
        std::shared_ptr<InHolder> in_holder;

        // Where there is no memory for more than that.
        void fail() noexcept;

        // What a hand has made of it.
        void note(const hands::Taken& taken) noexcept;

private:
        void note_found(const hands::Taken& taken);
};
using IncomingPtr = std::shared_ptr<Incoming>;

[[nodiscard]] IncomingPtr incoming(Message peeked);

// Who is to take the descriptors of a message.
struct Intake {
        bool probe = false;  // and offer what can be brokered; else they are closed
        std::string holder;  // and keep it: the one of this service, with HoldSec=
        hands::Charge charge;
};

}  // namespace sockbroker
