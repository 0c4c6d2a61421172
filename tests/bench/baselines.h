// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The programs to be measured against, loaded with one set of bindings.
#pragma once

#include <memory>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/rules.h"

namespace sockbroker::bench {

class Baselines {
public:
        // `sockets`: of the family of the rules, by service; 0 is for the floor.
        [[nodiscard]] static Result<std::unique_ptr<Baselines>> load(const std::vector<Rule>& rules,
                                                                     const std::vector<OwnedFd>& sockets);
        [[nodiscard]] int empty() const;
        [[nodiscard]] int floor() const;
        [[nodiscard]] int two_lpm() const;
        [[nodiscard]] double update_seconds() const;  // the map updates of two-LPM, in batches

        ~Baselines();
        Baselines(const Baselines&) = delete;
        Baselines& operator=(const Baselines&) = delete;

private:
        struct State;
        explicit Baselines(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
};

}  // namespace sockbroker::bench
