// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FDRETRIEVE=1: all sockets that are held for a service, however many. One message carries kMaxMessageFds, so a service
// that has more held asks again. What a process has no descriptors for would be lost on its way, and the broker counts
// it as given: so a process that is short of them first counts what is held, and does not ask if that is more.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/client/operation.h"

namespace sockbroker {

// "ok": `fds` are the caller's, live and registered; a warning says if more are held than it can have descriptors for.
// "not-held": there are none. EMFILE: there are too few descriptors for the first message; all are held still. Any
// other answer, or an Error: what may have come before it is held again as soon as the caller closes it and ends.
class RetrieveOperation : public Operation {
public:
        // `on_behalf_of`: the process whose they are from now on; 0: who asks.
        RetrieveOperation(std::string service, std::vector<OwnedFd>& fds, pid_t on_behalf_of = 0)
                : service_(std::move(service)), fds_(fds), on_behalf_of_(on_behalf_of) {}

        [[nodiscard]] ControlRequest next() override;
        void take_line(std::string_view line) override;
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        [[nodiscard]] std::size_t held() const;

        std::string service_;
        std::vector<OwnedFd>& fds_;
        pid_t on_behalf_of_;
        bool some_came_ = false;
        enum class Step : std::uint8_t { kRetrieve, kCount, kRetrieveCounted };
        Step step_ = Step::kRetrieve;
        std::size_t free_ = 0;                     // descriptors, when counting began
        std::map<std::string, std::size_t> held_;  // sockets of each service, as counted
};

[[nodiscard]] Result<ControlClient::Answer> retrieve_all(ControlClient& client, const std::string& service,
                                                         std::vector<OwnedFd>& fds, pid_t on_behalf_of = 0);

}  // namespace sockbroker
