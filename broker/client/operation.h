// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a client wants of the broker, as a line of requests of which each may depend on the answer before. It never
// waits and has no connection: a blocking tool runs it by run(), libsockbroker in the caller's event loop.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/client/client.h"

namespace sockbroker {

struct ControlRequest {
        std::string request;   // KEY=VALUE lines
        std::vector<int> fds;  // borrowed
};

class Operation {
public:
        using Rest = std::chrono::milliseconds;

        Operation() = default;
        Operation(const Operation&) = delete;
        Operation& operator=(const Operation&) = delete;
        virtual ~Operation() = default;

        [[nodiscard]] virtual ControlRequest next() = 0;

        // A line before the RESULT= record.
        virtual void take_line(std::string_view /*line*/) {}

        // Over: `answer`, which may have been changed, is what comes of it. Else next() is to be asked: without a rest
        // at once on this connection, else after so long and on a new one.
        struct Course {
                bool over = true;
                Rest rest{0};
        };
        // The answer, with the descriptors that came with it. An Error ends it too.
        [[nodiscard]] virtual Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) = 0;

        // There is no connection, or no answer. Nothing: that is the end of it; else how long to rest.
        [[nodiscard]] virtual std::optional<Rest> failed(const Error& /*error*/) { return std::nullopt; }

        // What it waits for, in words, where it is not over for want of time; empty: for an answer.
        [[nodiscard]] virtual std::string missing() const { return ""; }
};

// Asks on one connection until it is over, or wants to rest: then there is no answer.
struct OperationResult {
        std::optional<ControlAnswer> answer;
        Operation::Rest rest{0};
};
[[nodiscard]] Result<OperationResult> run_until_rest(ControlClient& client, Operation& operation);

// Of an operation that never rests.
[[nodiscard]] Result<ControlAnswer> run(ControlClient& client, Operation& operation);

}  // namespace sockbroker
