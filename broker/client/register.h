// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FDSTORE=1, as a rule with MIGRATE=1: registers sockets, and lets the kernel hand on what waits in a listener when it
// closes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"
#include "broker/client/operation.h"

namespace sockbroker {

struct HowToRegister {
        std::int32_t pid = 0;  // the process whose sockets they are; 0: the caller
        // The migration program is attached to those TCP listeners that are bound with SO_REUSEPORT; where that fails
        // "ok" has one more warning. It replaces a program that their group has.
        bool migrate = true;
        bool inherit = false;               // INHERIT=1: what the service has already keeps its place
        std::optional<Family> family = {};  // FAMILY=: the one that dual-stack sockets serve; none: both
};

// An older broker is asked without the keys that it does not know: first those that came last.
class RegisterOperation : public Operation {
public:
        // `service` empty: the broker finds it. `fds` are borrowed until it is over.
        RegisterOperation(std::string service, std::vector<int> fds, HowToRegister how = {})
                : service_(std::move(service)), fds_(std::move(fds)), how_(how) {}

        [[nodiscard]] ControlRequest next() override;
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        std::string service_;
        std::vector<int> fds_;
        HowToRegister how_;
};

// The broker's answer, as of ControlClient::call().
[[nodiscard]] Result<ControlClient::Answer> register_sockets(ControlClient& client, const std::string& service,
                                                             const std::vector<int>& fds, HowToRegister how = {});

}  // namespace sockbroker
