// SPDX-License-Identifier: LGPL-2.1-or-later
//
// VERB=match: who would take a socket that is bound there.
#pragma once

#include <string>
#include <string_view>

#include "broker/client/operation.h"
#include "broker/protocol/request.h"

namespace sockbroker {

struct MatchedService {
        std::string service;
        bool holds = false;       // HoldSec=
        bool reuse_port = false;  // ReusePort=
};

// The values of a line of the answer; what it lacks stays as it was. Pure.
void read_taker(std::string_view line, MatchedService& taker);

class MatchOperation : public Operation {
public:
        MatchOperation(WantedBind bind, MatchedService& taker) : bind_(std::move(bind)), taker_(taker) {}

        [[nodiscard]] ControlRequest next() override;
        void take_line(std::string_view line) override { read_taker(line, taker_); }
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        WantedBind bind_;
        MatchedService& taker_;
};

}  // namespace sockbroker
