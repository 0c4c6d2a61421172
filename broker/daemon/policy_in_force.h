// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The policy by which everything is judged. Reloads alone replaces it; all others look at it and never keep more of it
// than they need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "broker/policy/decide.h"

namespace sockbroker {

class PolicyInForce {
public:
        const Policy& operator*() const { return *policy_; }
        const Policy* operator->() const { return policy_.get(); }
        // For whoever comes back to it later, when another one may be in force.
        [[nodiscard]] const std::shared_ptr<const Policy>& shared() const { return policy_; }
        [[nodiscard]] const Interfaces& interfaces() const { return interfaces_; }  // as the rules have them
        [[nodiscard]] std::int64_t since_usec() const { return since_usec_; }       // since the epoch; 0: none is
        // A start could take none: the kernel's rules stand, and nobody is admitted.
        [[nodiscard]] bool none() const { return since_usec_ == 0; }

        // What a long answer is read from. A reader may be slow, and there may be many: when the policy is replaced for
        // the second time they lose it, so that no more than two are kept.
        struct Snapshot {
                std::shared_ptr<const Policy> policy;
        };
        [[nodiscard]] std::shared_ptr<const Snapshot> snapshot() const { return snapshot_; }

        // For replace(), which cannot do without: the memory that it will want. To be called while the policy may still
        // be refused.
        void prepare();
        void replace(std::shared_ptr<const Policy> policy, Interfaces interfaces) noexcept;
        void set_interfaces(Interfaces interfaces) { interfaces_ = std::move(interfaces); }

private:
        std::shared_ptr<const Policy> policy_ = std::make_shared<Policy>();
        Interfaces interfaces_;
        std::int64_t since_usec_ = 0;
        std::shared_ptr<Snapshot> snapshot_ = std::make_shared<Snapshot>(policy_);
        std::weak_ptr<Snapshot> snapshot_before_;
        std::shared_ptr<Snapshot> next_;  // prepared
};

// One for each source and interface. None is looked at, there may be a million, and anybody may ask.
[[nodiscard]] std::size_t count_bindings(const Service& service, Protocol protocol, Family family);
[[nodiscard]] std::size_t count_bindings(const Policy& policy);

}  // namespace sockbroker
