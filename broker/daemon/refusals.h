// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is made of each refusal, whoever refuses: it is counted, written to the journal unless its sender fills that,
// and answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "broker/audit/audit.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/refusal_log.h"
#include "broker/hands/wire.h"
#include "broker/peer/peer.h"
#include "broker/protocol/result_code.h"

namespace sockbroker {

class Refusals {
public:
        explicit Refusals(Audit& audit) : audit_(audit) {}

        // `service` may be empty, or one that does not exist.
        [[nodiscard]] Answer refuse(const Refusal& refusal, const Peer& peer, const std::string& service);
        [[nodiscard]] Answer refuse_unknown(const std::string& service, const Peer& peer);  // policy has it not
        // Connections to `control`, of this user, by the door: before any request was read.
        void count_connections(const hands::RefusedReport& report);
        // An entry for those that the journal does not have one by one. To be called every second or so.
        void tell_left_out();

        [[nodiscard]] const RefusalCounts& counts() const { return counts_; }
        [[nodiscard]] std::uint64_t total() const { return log_.total(); }
        [[nodiscard]] std::uint64_t connections() const { return connections_.total(); }

private:
        Audit& audit_;
        RefusalLog log_;
        // The door tells of many at once, so one entry of each user has a number that means something.
        RefusalLog connections_{{.of_uid = 1, .of_group = 10}};
        RefusalCounts counts_{};
};

}  // namespace sockbroker
