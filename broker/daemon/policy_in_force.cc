// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/policy_in_force.h"

#include <utility>

#include "broker/base/wall_clock.h"

namespace sockbroker {

void PolicyInForce::prepare() {
        if (next_ == nullptr) {
                next_ = std::make_shared<Snapshot>();
        }
}

void PolicyInForce::replace(std::shared_ptr<const Policy> policy, Interfaces interfaces) noexcept {
        policy_ = std::move(policy);
        if (const auto before = snapshot_before_.lock()) {
                before->policy.reset();
        }
        next_->policy = policy_;
        snapshot_before_ = std::exchange(snapshot_, std::move(next_));
        interfaces_ = std::move(interfaces);
        since_usec_ = wall_usec();
}

std::size_t count_bindings(const Service& service, Protocol protocol, Family family) {
        return service.lines.at(static_cast<std::size_t>(protocol)).at(static_cast<std::size_t>(family)) *
               count_client_filters(service, family);
}

std::size_t count_bindings(const Policy& policy) {
        std::size_t bindings = 0;
        for (const auto& service : policy.services) {
                for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                        bindings += count_bindings(service, protocol, Family::kIpv4) +
                                    count_bindings(service, protocol, Family::kIpv6);
                }
        }
        return bindings;
}

}  // namespace sockbroker
