// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The table of verbs.
#include "broker/ctl/verbs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "broker/ctl/output.h"
#include "broker/ctl/render.h"
#include "broker/ctl/running.h"

namespace sockbroker::ctl {

namespace {

constexpr std::size_t kMany = std::numeric_limits<std::size_t>::max();

constexpr std::array kVerbs = {
        Verb{"status", "status [SERVICE...]", "Show the broker and its services (the default)", 0, kMany, show_status,
             true},
        Verb{"list", "list [SERVICE...]", "List registered sockets", 0, kMany, show_list, true},
        Verb{"bindings", "bindings [SERVICE|ADDR...]", "List the bindings of the policy in force", 0, kMany,
             show_bindings, true},
        Verb{"explain", "explain PROTO ADDR PORT", "Explain what happens to a packet, and why", 3, 3, explain_packet,
             true},
        Verb{"register", "register [SERVICE]", "Register the sockets that systemd passed", 0, kMany, register_sockets},
        Verb{"unregister", "unregister SERVICE", "Remove the sockets of a service", 1, 1, unregister_service},
        Verb{"retrieve", "retrieve SERVICE ...", "Run a program with the sockets held for it", 2, kMany,
             retrieve_sockets},
        Verb{"hold", "hold SERVICE", "Keep its sockets over a stop (--timeout=)", 1, 1, hold_service},
        Verb{"drain", "drain SERVICE", "Withdraw its prefixes while it serves on", 1, 1, drain_service},
        Verb{"undrain", "undrain SERVICE", "Announce its prefixes again", 1, 1, undrain_service},
        Verb{"wait", "wait SERVICE", "Wait until it serves or has drained (--for=)", 1, 1, wait_for_service, true},
        Verb{"reload", "reload", "Read the policy again, and show its errors", 0, 0, reload_policy},
        Verb{"verify", "verify [FILE...]", "Check the policy on disk, without a broker", 0, kMany, verify_policy},
        Verb{"diff", "diff", "Show what a reload would do", 0, 0, show_diff, true},
        Verb{"cat", "cat [SERVICE...]", "Show the policy files on disk", 0, kMany, cat_policy},
        Verb{"import", "import tubular FILE", "Print a policy equivalent to tubular's bindings", 2, 2, import_policy},
        Verb{"monitor", "monitor [SERVICE...]", "Show events as they happen", 0, kMany, monitor_events, true},
        Verb{"metrics", "metrics", "Print metrics in OpenMetrics format", 0, 0, show_metrics, true},
        Verb{"unload", "unload", "End dispatch", 0, 0, unload_dispatch},
        Verb{"version", "version", "Show the versions of tool and broker", 0, 0, show_version, true},
};

}  // namespace

std::span<const Verb> verbs() {
        return kVerbs;
}

namespace {

int run_verb(const Options& options) {
        if (options.help) {
                Output output(options);
                output.write(help_text());
                return output.finish(kExitOk);
        }
        if (options.json_help) {
                Output output(options);
                output.write("short\npretty\noff\n");
                return output.finish(kExitOk);
        }
        if (options.version) {
                Output output(options);
                output.write("sockbrokerctl " SOCKBROKER_VERSION "\n");
                return output.finish(kExitOk);
        }
        const auto verb = std::ranges::find(kVerbs, options.verb, &Verb::name);
        if (verb == kVerbs.end()) {
                complain(fmt::format("unknown verb {}, see sockbrokerctl --help", options.verb));
                return kExitUsage;
        }
        const std::size_t given = options.arguments.size();
        if (given < verb->min_arguments || given > verb->max_arguments) {
                complain(fmt::format("too {} arguments, write: sockbrokerctl {}",
                                     given < verb->min_arguments ? "few" : "many", verb->synopsis));
                return kExitUsage;
        }
        return verb->run(options);
}

}  // namespace

int run(const Options& options) {
        const int status = run_verb(options);
        if (failure().result == kNoAnswer && is_not_up_by_systemd(options)) {
                complain(fmt::format("it fails at each start, or takes that long to start: journalctl -u {}",
                                     unit_of_broker(options)));
        }
        return end_with(options, status);
}

int end_with(const Options& options, int status) {
        // What was begun, or says itself what is wrong (verify, register), stays as it is.
        if (options.json != JsonMode::kOff && status != kExitOk && !failure().message.empty() && !has_output()) {
                const auto& [result, errnum, message] = failure();
                Output output(options);
                output.write(dump({{"result", result}, {"errno", errnum}, {"message", message}}, options.json));
                return output.finish(status);
        }
        return status;
}

}  // namespace sockbroker::ctl
