// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FDSTOREREMOVE=1: removes what the caller's unit (outside units: its uid) registered.
#pragma once

#include <string>

#include "broker/client/operation.h"

namespace sockbroker {

class RemoveOperation : public Operation {
public:
        // `service` empty: the broker finds it.
        explicit RemoveOperation(std::string service) : service_(std::move(service)) {}

        [[nodiscard]] ControlRequest next() override;
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;

private:
        std::string service_;
};

}  // namespace sockbroker
