// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The asking side of the control socket for programs that may wait: connect, send one request with its descriptors,
// hand each line of the answer to the caller, return the RESULT= record. Knows nothing of what lines mean, keeps no
// line, and never waits for ever: a broker that is silent is an error after a bounded time.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/client/exchange.h"

namespace sockbroker {

// RUNTIME_DIR/control
[[nodiscard]] std::string control_path(const std::string& runtime_dir);

// A connection to RUNTIME_DIR/control. Errors: no such socket or nobody there (is sockbrokerd running?), no permission;
// EAGAIN: nobody takes connections, for as long as `patience`; with 0 it does not wait.
[[nodiscard]] Result<OwnedFd> open_control(const std::string& runtime_dir, std::chrono::milliseconds patience);

// ETIMEDOUT, in words.
[[nodiscard]] std::unexpected<Error> no_answer_in_time(const std::string& runtime_dir);

class ControlClient {
public:
        // As open_control(), but for ETIMEDOUT: nobody takes connections, for as long as that.
        [[nodiscard]] static Result<ControlClient> connect(
                const std::string& runtime_dir, std::chrono::milliseconds patience = std::chrono::seconds(10));

        using Answer = ControlAnswer;

        // `request` is KEY=VALUE lines; `fds` are borrowed. `on_line` is called for each line before the RESULT=
        // record, without its new line. The Answer is what the broker said, a refusal too; an Error means that there is
        // no answer: the connection broke, took longer than the timeout without a record, or what came is not the
        // protocol. Several calls may follow on one connection, not after an Error. Descriptors that come with any
        // record of the answer go to `received`; without it the kernel closes them.
        [[nodiscard]] Result<Answer> call(std::string_view request, const std::vector<int>& fds,
                                          const std::function<void(std::string_view line)>& on_line,
                                          std::vector<OwnedFd>* received = nullptr);

        // How long a record may take to come. A reload of a large policy answers only when it is done.
        void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }
        // For an answer that goes on: it has time for ever once its first record is there, and ends with ECANCELED when
        // there is something to be read from `stop`, which is borrowed.
        void follow(int stop) { stop_ = stop; }

private:
        ControlClient(OwnedFd fd, std::string runtime_dir) : fd_(std::move(fd)), runtime_dir_(std::move(runtime_dir)) {}

        OwnedFd fd_;
        std::string runtime_dir_;
        int stop_ = -1;
        std::chrono::milliseconds timeout_{60'000};
};

}  // namespace sockbroker
