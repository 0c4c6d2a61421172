// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb wait: broker/client/wait.h until its time is up, with a new connection for each look.
#include "broker/client/wait.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <thread>

#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

using Clock = std::chrono::steady_clock;

// Why nothing is known yet: of no connection, or of no answer.
struct NoAnswer {
        std::string_view result = kNoAnswer;
        int errnum = ETIMEDOUT;
};

// What an answer may take though the time given is shorter; and the longest time, should the broker die over it.
constexpr auto kLeastPatience = std::chrono::seconds(1), kMostPatience = std::chrono::seconds(60);
// By how much less than it was told to poll(2) may wait.
constexpr auto kRounding = std::chrono::milliseconds(50);

// On a connection of its own. No connection, or no answer, is a reason to ask again.
Result<OperationResult> look(const Options& options, WaitOperation& waiting, Clock::duration left, NoAnswer& why) {
        const auto gave_up = [&](const Error& error) {
                return OperationResult{.answer = {}, .rest = waiting.failed(error).value_or(Operation::Rest(0))};
        };
        Result<ControlClient> client = try_connect(options);
        if (!client) {
                const int errnum = client.error().errnum;
                why = {.result = errnum == ESHUTDOWN            ? "stopped"
                                 : nobody_there(client.error()) ? "unreachable"
                                                                : kNoAnswer,
                       .errnum = errnum};
                return gave_up(client.error());
        }
        why = {};
        client->set_timeout(std::chrono::duration_cast<std::chrono::milliseconds>(
                options.timeout_given ? std::clamp<Clock::duration>(left, kLeastPatience, kMostPatience)
                                      : kShortTimeout));
        return run_until_rest(*client, waiting);
}

int wait_until(const Options& options, const std::string& service, WaitFor wanted) {
        WaitOperation waiting(service, wanted);
        const auto start = Clock::now();
        const auto left = [&]() -> Clock::duration {
                return options.timeout == kForever ? Clock::duration::max() : options.timeout - (Clock::now() - start);
        };
        for (;;) {
                NoAnswer why;
                const auto asked = Clock::now();
                const Result<OperationResult> outcome = look(options, waiting, left(), why);
                if (!outcome) {
                        complain_as("failed", outcome.error().errnum, outcome.error().text());
                        return kExitFailed;
                }
                if (const auto& answer = outcome->answer) {
                        if (answer->result == "ok") {
                                return kExitOk;
                        }
                        return report_refusal(*answer, service);
                }
                // Without a time of its own it waits for the service as long as that takes, and not for a broker that
                // hangs: one that restarts is back sooner.
                if (!options.timeout_given && !waiting.answered() && why.result == kNoAnswer &&
                    Clock::now() - asked >= kShortTimeout - kRounding) {
                        complain_as(why.result, why.errnum, waiting.missing());
                        return kExitFailed;
                }
                if (left() <= Clock::duration::zero()) {
                        const auto message = fmt::format("timed out: {}", waiting.missing());
                        if (waiting.answered()) {
                                complain_as("failed", ETIMEDOUT, message);
                                return kExitTimedOut;
                        }
                        complain_as(why.result, why.errnum, message);
                        return kExitUnreachable;
                }
                std::this_thread::sleep_for(std::min<Clock::duration>(outcome->rest, left()));
        }
}

}  // namespace

int wait_for_service(const Options& options) {
        const std::string& service = options.arguments.front();
        if (const auto checked = hand_out({}, service); !checked || service.empty()) {
                complain(checked ? "the name of the service is empty" : checked.error().text());
                return kExitUsage;
        }
        if (options.wait_for.empty()) {
                complain("wait for what? write --for=live or --for=drained");
                return kExitUsage;
        }
        return wait_until(options, service, options.wait_for == "live" ? WaitFor::kLive : WaitFor::kDrained);
}

}  // namespace sockbroker::ctl
