// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One connection to the broker for the verbs: tells the person why there is none, and turns that into an exit status.
#pragma once

#include <chrono>
#include <expected>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/client/client.h"
#include "broker/ctl/options.h"
#include "broker/ctl/render.h"

namespace sockbroker::ctl {

using OnLine = std::function<void(std::string_view line)>;

// Connects, within the time of the options. For a verb that only reads ESHUTDOWN: the broker's unit is down, and
// systemd would start it for the connection.
[[nodiscard]] Result<ControlClient> try_connect(const Options& options);
// Whether that error means that no broker runs, rather than one that is out of reach or hangs.
[[nodiscard]] bool nobody_there(const Error& error);
// Tells the person, and says with which status to exit.
[[nodiscard]] int report_unreachable(const Options& options, const Error& error);
// try_connect(); on failure the person has been told, and the error is the exit status.
[[nodiscard]] std::expected<ControlClient, int> connect(const Options& options);

// What to do about a socket where no broker answers.
[[nodiscard]] std::string unreachable_hint(const Options& options);

// One request; the Answer may be a refusal, which is left to the caller to report.
[[nodiscard]] std::expected<ControlClient::Answer, int> ask(ControlClient& client, std::string_view request,
                                                            const std::vector<int>& fds, const OnLine& on_line);

// connect() and ask() for a verb without descriptors.
[[nodiscard]] std::expected<ControlClient::Answer, int> ask(const Options& options, std::string_view request,
                                                            const OnLine& on_line);

// A request that got no answer: the broker hangs or went away, or the request could not be sent.
[[nodiscard]] int report_no_answer(const Error& error);

// "not-permitted: MESSAGE" on standard error, after `what` if there is one.
[[nodiscard]] int report_refusal(const ControlClient::Answer& answer, std::string_view what = "");

// "SERVICE: warning: TEXT" on standard error for each.
void report_warnings(const ControlClient::Answer& answer, std::string_view service);

// How a verb that asks about one service ends: shows its row for --json=, else `said` (empty: nothing) unless --quiet,
// then warnings or the refusal. Returns the exit status.
[[nodiscard]] int show_answer(const Options& options, std::string_view service, const ControlClient::Answer& answer,
                              std::string_view said);

// {service, result, errno, message}, and warnings if there are any, as --json= of register and unregister shows it.
[[nodiscard]] Json answer_row(std::string_view service, const ControlClient::Answer& answer);

}  // namespace sockbroker::ctl
