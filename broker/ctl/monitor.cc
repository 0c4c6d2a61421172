// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb monitor: events as they happen, a line or a JSON object each, until it is interrupted, --timeout= is over or
// the broker ends. Never through a pager.
#include <fmt/format.h>
#include <sys/signalfd.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <utility>

#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/selection.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

// Becomes readable when the verb is to end: Ctrl-C, SIGTERM, the end of the time that it runs.
Result<OwnedFd> end_of_monitor() {
        sigset_t signals;
        sigemptyset(&signals);
        for (const int signal : {SIGINT, SIGTERM, SIGALRM}) {
                sigaddset(&signals, signal);
        }
        OwnedFd fd(signalfd(-1, &signals, SFD_CLOEXEC));
        if (!fd || sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) {
                return fail_errno("cannot wait for signals");
        }
        return fd;
}

void run_for(std::chrono::microseconds timeout) {
        if (timeout != kForever) {
                const auto span = std::max<std::int64_t>(timeout.count(), 1);
                const itimerval timer{.it_interval = {}, .it_value = {span / 1'000'000, span % 1'000'000}};
                (void)setitimer(ITIMER_REAL, &timer, nullptr);  // fails for values that are none only
        }
}

bool wanted(const Json& row, const Selection& selection) {
        const auto action = cell(row, "action");
        return selection.all() || action == "begin" || action == "missed" ||
               selection.takes_service(cell(row, "service", ""));
}

// "Nov 29 00:10:01", as the journal is shown
std::string short_time(const Json& row) {
        const auto at = row.find("time");
        const std::time_t seconds =
                at != row.end() && at->is_number_integer() ? at->get<std::int64_t>() / 1'000'000 : std::time_t{0};
        std::tm parts = {};
        std::array<char, 64> text{};
        (void)localtime_r(&seconds, &parts);
        return {text.data(), std::strftime(text.data(), text.size(), "%b %d %H:%M:%S", &parts)};
}

std::string text_of(const Json& row) {
        const auto service = cell(row, "service", "");
        const auto rule = cell(row, "rule", "");
        return fmt::format("{} {}{}{}: {}{}\n", short_time(row), cell(row, "action"), service.empty() ? "" : " ",
                           service, cell(row, "message"), rule.empty() ? "" : fmt::format(" ({})", rule));
}

}  // namespace

int monitor_events(const Options& options) {
        auto end = end_of_monitor();
        if (!end) {
                complain(end.error().text());
                return kExitFailed;
        }
        // --timeout= is how long to look. Until there is something to look at it is how long to wait, where it is
        // short: a broker that hangs is no quiet one.
        Options quick = options;
        quick.timeout = std::min<std::chrono::microseconds>(options.timeout, kShortTimeout);
        auto client = connect(quick);
        if (!client) {
                return client.error();
        }
        client->follow(end->get());
        quick.pager = false;
        Output output(quick);
        (void)std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // whoever reads a pipe wants each event at once
        const Selection selection(options.arguments);
        bool begun = false;
        const auto answer = client->call("VERB=monitor\n", {}, [&](std::string_view line) {
                if (!std::exchange(begun, true)) {
                        run_for(options.timeout);
                }
                const auto row = parse_row(line);
                if (row && wanted(*row, selection)) {
                        output.write(options.json == JsonMode::kOff ? text_of(*row) : dump(*row, options.json));
                }
        });
        if (!answer && answer.error().errnum == ECANCELED) {
                return output.finish(kExitOk);
        }
        if (answer && answer->result != "ok") {
                return report_refusal(*answer);
        }
        if (begun) {
                complain_as("unreachable", ECONNRESET, "the broker has ended");
                return output.finish(kExitUnreachable);
        }
        complain_as(kNoAnswer, answer ? 0 : answer.error().errnum, answer ? answer->message : answer.error().text());
        return kExitFailed;
}

}  // namespace sockbroker::ctl
