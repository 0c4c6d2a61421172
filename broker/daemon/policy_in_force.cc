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

std::size_t count_bindings(const Service& service) {
        std::size_t bindings = 0;
        for (const auto& binding : service.bindings) {
                bindings += count_client_filters(service, binding.prefix.address.family);
        }
        return bindings;
}

std::size_t count_bindings(const Policy& policy) {
        std::size_t bindings = 0;
        for (const auto& service : policy.services) {
                bindings += count_bindings(service);
        }
        return bindings;
}

}  // namespace sockbroker
