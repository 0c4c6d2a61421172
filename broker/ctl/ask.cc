// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See ask.h.
#include "broker/ctl/ask.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "broker/client/own_netns.h"
#include "broker/ctl/output.h"
#include "broker/ctl/running.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

std::string unreachable_hint(const Options& options) {
        if (options.runtime_dir == Options{}.runtime_dir) {
                return "start it with: systemctl start sockbrokerd.socket sockbrokerd.service";
        }
        if (!options.netns.empty()) {
                return fmt::format("start it with: systemctl start sockbrokerd@{0}.socket sockbrokerd@{0}.service",
                                   options.netns);
        }
        return fmt::format("start sockbrokerd with --runtime-dir {}", options.runtime_dir);
}

Result<ControlClient> try_connect(const Options& options) {
        const auto verb = std::ranges::find(verbs(), options.verb, &Verb::name);
        constexpr std::chrono::milliseconds kLeast(1);  // none would be for ever
        const bool own = options.verb == "hold";        // whose span is its own
        const auto patience = std::chrono::ceil<std::chrono::milliseconds>(
                own || options.timeout == kForever ? kShortTimeout : options.timeout);
        const auto start = std::chrono::steady_clock::now();
        if (verb != verbs().end() && verb->reads && is_down_by_systemd(options, patience)) {
                return fail(ESHUTDOWN, fmt::format("sockbrokerd is not running, and is not started for \"{}\", which "
                                                   "only reads",
                                                   options.verb));
        }
        // Of all together: a broker that hangs has taken the connection, or has not.
        const auto left = [&] {
                const auto gone = std::chrono::steady_clock::now() - start;
                return std::max(patience - std::chrono::duration_cast<std::chrono::milliseconds>(gone), kLeast);
        };
        Result<ControlClient> client = ControlClient::connect(options.runtime_dir, left());
        if (client) {
                client->set_timeout(left());
        }
        return client;
}

bool nobody_there(const Error& error) {
        return error.errnum == ENOENT || error.errnum == ECONNREFUSED || error.errnum == ESHUTDOWN;
}

int report_unreachable(const Options& options, const Error& error) {
        if (error.errnum == ESHUTDOWN) {
                complain_as("stopped", error.errnum, error.message);
        } else {
                complain_as(error.errnum == ETIMEDOUT ? kNoAnswer : std::string_view("unreachable"), error.errnum,
                            error.text());
        }
        if (nobody_there(error)) {
                complain(unreachable_hint(options));
        }
        return error.errnum == ETIMEDOUT ? kExitFailed : kExitUnreachable;
}

std::expected<ControlClient, int> connect(const Options& options) {
        Result<ControlClient> client = try_connect(options);
        if (!client) {
                return std::unexpected(report_unreachable(options, client.error()));
        }
        return std::move(*client);
}

std::expected<ControlClient::Answer, int> ask(ControlClient& client, std::string_view request,
                                              const std::vector<int>& fds, const OnLine& on_line) {
        Result<ControlClient::Answer> answer = client.call(request, fds, on_line);
        if (!answer) {
                return std::unexpected(report_no_answer(answer.error()));
        }
        return std::move(*answer);
}

std::expected<ControlClient::Answer, int> ask(const Options& options, std::string_view request, const OnLine& on_line) {
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return std::unexpected(client.error());
        }
        return ask(*client, request, {}, on_line);
}

int report_no_answer(const Error& error) {
        complain_as(error.errnum == 0 ? std::string_view("failed") : kNoAnswer, error.errnum, error.text());
        return kExitFailed;
}

int report_refusal(const ControlClient::Answer& answer, std::string_view what) {
        complain_as(answer.result, answer.errnum,
                    fmt::format("{}{}{}: {}", what, what.empty() ? "" : ": ", answer.result, answer.message));
        if (const auto hint = answer.result == "foreign-netns" ? foreign_netns_hint() : ""; !hint.empty()) {
                complain(hint);
        }
        return kExitFailed;
}

void report_warnings(const ControlClient::Answer& answer, std::string_view service) {
        for (const auto& warning : answer.warnings) {
                complain(fmt::format("{}: warning: {}", service, warning));
        }
}

Json answer_row(std::string_view service, const ControlClient::Answer& answer) {
        Json row = {
                {"service", service}, {"result", answer.result}, {"errno", answer.errnum}, {"message", answer.message}};
        if (!answer.warnings.empty()) {
                row["warnings"] = answer.warnings;
        }
        return row;
}

int show_answer(const Options& options, std::string_view service, const ControlClient::Answer& answer,
                std::string_view said) {
        const bool ok = answer.result == "ok";
        Output output(options);
        if (options.json != JsonMode::kOff) {
                JsonArray array(output, options.json);
                array.add(answer_row(service, answer));
                array.close();
        } else if (ok && !options.quiet && !said.empty()) {
                output.write(fmt::format("{}\n", said));
        }
        if (ok) {
                report_warnings(answer, service);
        }
        return output.finish(ok ? kExitOk : report_refusal(answer, service));
}

}  // namespace sockbroker::ctl
