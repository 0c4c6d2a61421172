// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/operation.h"

namespace sockbroker {

Result<OperationResult> run_until_rest(ControlClient& client, Operation& operation) {
        for (;;) {
                const ControlRequest question = operation.next();
                std::vector<OwnedFd> received;
                auto answer = client.call(
                        question.request, question.fds, [&](std::string_view line) { operation.take_line(line); },
                        &received);
                if (!answer) {
                        if (const auto rest = operation.failed(answer.error())) {
                                return OperationResult{.answer = {}, .rest = *rest};
                        }
                        return std::unexpected(answer.error());
                }
                const auto course = operation.take(*answer, std::move(received));
                if (!course) {
                        return std::unexpected(course.error());
                }
                if (course->over) {
                        return OperationResult{.answer = std::move(*answer), .rest = {}};
                }
                if (course->rest > Operation::Rest(0)) {
                        return OperationResult{.answer = {}, .rest = course->rest};
                }
        }
}

Result<ControlAnswer> run(ControlClient& client, Operation& operation) {
        for (;;) {
                auto outcome = run_until_rest(client, operation);
                if (!outcome) {
                        return std::unexpected(outcome.error());
                }
                if (auto answer = std::move(outcome->answer)) {
                        return std::move(*answer);
                }
        }
}

}  // namespace sockbroker
