// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FDRETRIEVE=1: all sockets that are held for a service, however many. One message carries kMaxMessageFds, so a service
// that has more held asks again.
#pragma once

#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/client/operation.h"

namespace sockbroker {

// "ok": `fds` are the caller's, live and registered. "not-held": there are none. Any other answer, or an Error: what
// may have come before it is held again as soon as the caller closes it and ends.
class RetrieveOperation : public Operation {
public:
        RetrieveOperation(std::string service, std::vector<OwnedFd>& fds) : service_(std::move(service)), fds_(fds) {}

        [[nodiscard]] ControlRequest next() override;
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        std::string service_;
        std::vector<OwnedFd>& fds_;
        bool some_came_ = false;
};

[[nodiscard]] Result<ControlClient::Answer> retrieve_all(ControlClient& client, const std::string& service,
                                                         std::vector<OwnedFd>& fds);

}  // namespace sockbroker
