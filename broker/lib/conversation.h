// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One operation at a time in the caller's event loop: a descriptor that is readable when there is something to do, and
// step() which does it. A connection for each operation, so that a broker may restart between two.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/client/exchange.h"
#include "broker/client/operation.h"

namespace sockbroker {

class Conversation {
public:
        using Clock = std::chrono::steady_clock;

        [[nodiscard]] static Result<Conversation> make(std::string runtime_dir);

        // One epoll(7) descriptor for connection and time.
        [[nodiscard]] int fd() const { return epoll_.get(); }
        [[nodiscard]] bool busy() const { return operation_ != nullptr; }

        // Nothing is sent yet: fd() is readable at once. `deadline`: none, it may take for ever.
        void begin(std::unique_ptr<Operation> operation, std::optional<Clock::time_point> deadline);
        // Goes on as far as possible without waiting. nullopt: not over yet. After an answer or an error it is not busy
        // any more.
        [[nodiscard]] Result<std::optional<ControlAnswer>> step();
        // Never in a child that has it by fork(2), where it would end the request of the parent.
        void cancel();

private:
        Conversation() = default;

        [[nodiscard]] Result<std::optional<ControlAnswer>> advance();
        // False: not now.
        [[nodiscard]] Result<bool> connect();
        [[nodiscard]] Result<void> give_up_look(const Error& error);
        void rest(Clock::duration span);
        [[nodiscard]] Result<void> watch();
        void hang_up();

        std::string runtime_dir_;
        OwnedFd epoll_, timer_;
        std::unique_ptr<Operation> operation_;
        std::optional<Clock::time_point> deadline_;
        Clock::time_point next_look_;  // without a connection: when to make one
        OwnedFd connection_;
        short watched_ = 0;  // events of the connection that epoll waits for, 0: it does not know it
        std::optional<Exchange> exchange_;
        std::vector<OwnedFd> received_;
};

}  // namespace sockbroker
