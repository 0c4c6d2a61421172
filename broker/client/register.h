// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FDSTORE=1 with MIGRATE=1: registers sockets, and lets the kernel hand on what waits in a listener when it closes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/client/operation.h"

namespace sockbroker {

// "ok": the migration program was attached to those TCP listeners that are bound with SO_REUSEPORT; where that failed a
// warning is added. An older broker, which does not know MIGRATE=, is asked without it.
class RegisterOperation : public Operation {
public:
        // `service` empty: the broker finds it. `fds` are borrowed until it is over. `pid`: the process whose sockets
        // they are, 0: the caller.
        RegisterOperation(std::string service, std::vector<int> fds, std::int32_t pid = 0)
                : service_(std::move(service)), fds_(std::move(fds)), pid_(pid) {}

        [[nodiscard]] ControlRequest next() override;
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        std::string service_;
        std::vector<int> fds_;
        std::int32_t pid_;
        bool migrate_ = true;
};

// The broker's answer, as of ControlClient::call().
[[nodiscard]] Result<ControlClient::Answer> register_sockets(ControlClient& client, const std::string& service,
                                                             const std::vector<int>& fds, std::int32_t pid = 0);

}  // namespace sockbroker
