// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs reload and verify: what is wrong with a policy, each place on a line of its own. verify asks no broker
// and needs no privilege: it runs the same code on the same files.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "broker/base/interface_index.h"
#include "broker/base/printable.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"
#include "broker/policy/decide.h"
#include "broker/policy/files.h"

namespace sockbroker::ctl {

namespace {

// A row of the broker back to a Diagnostic.
Diagnostic diagnostic_of(const Json& row) {
        const auto line = row.find("line");
        return {.file = cell(row, "file"),
                .line = line != row.end() && line->is_number_unsigned() ? line->get<unsigned>() : 0,
                .severity = cell(row, "severity") == "warning" ? Severity::kWarning : Severity::kError,
                .message = cell(row, "message")};
}

std::string summary(const Policy& policy) {
        std::size_t bindings = 0;
        for (const Service& service : policy.services) {
                // As the verb bindings shows them: a bare port stands twice, once a family, and is one binding to
                // whoever wrote it.
                for (const Binding& binding : service.bindings) {
                        const Family family = binding.prefix.address.family;
                        if (!binding.bare || family == Family::kIpv4 || !any_source(service)) {
                                bindings += count_matches(service, family);
                        }
                }
        }
        return fmt::format("The policy is valid: {}, {}, {}.\n", count(policy.files.size(), "file"),
                           count(policy.services.size(), "service"), count(bindings, "binding"));
}

}  // namespace

int reload_policy(const Options& options) {
        Output output(options);
        JsonArray array(output, options.json);
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return client.error();
        }
        client->set_timeout(std::chrono::minutes(10));
        const auto answer = ask(*client, "VERB=reload\n", {}, [&](std::string_view line) {
                if (options.json != JsonMode::kOff) {
                        array.add_line(line);
                } else if (const std::optional<Json> row = parse_row(line)) {
                        fmt::print(stderr, "{}\n", to_line(diagnostic_of(*row)));
                }
        });
        if (!answer) {
                return output.finish(answer.error());
        }
        // not-root and the like: there was no look at the policy.
        const bool judged = answer->result == "ok" || answer->result == "malformed";
        if (options.json != JsonMode::kOff && judged) {
                array.close();
        }
        return output.finish(answer->result == "ok" ? kExitOk : report_refusal(*answer));
}

int verify_policy(const Options& options) {
        // A folder that is not there is empty to the broker; one that was named here is a slip of the pen.
        if (!options.config_dir.empty() && ::access(options.config_dir.c_str(), R_OK | X_OK) != 0) {
                complain(fmt::format("cannot read the folder {} given by --config-dir: {}", options.config_dir,
                                     std::strerror(errno)));
                return kExitFailed;
        }
        const std::vector<std::string>& dirs = options.config_dirs;
        const ParsedBrokerConfig config = load_broker_config(dirs);
        const ParsedPolicy parsed = load_policy(dirs, config.config.limits);

        std::vector<Diagnostic> diagnostics = config.diagnostics;
        diagnostics.insert(diagnostics.end(), parsed.diagnostics.begin(), parsed.diagnostics.end());
        if (parsed.policy) {
                const auto warnings = unknown_interfaces(*parsed.policy, interfaces_now());
                diagnostics.insert(diagnostics.end(), warnings.begin(), warnings.end());
        }
        const bool failed = !parsed.policy || std::ranges::any_of(diagnostics, [](const Diagnostic& d) {
                return d.severity == Severity::kError;
        });

        Output output(options);
        if (options.json != JsonMode::kOff) {
                JsonArray array(output, options.json);
                for (const Diagnostic& diagnostic : diagnostics) {
                        array.add(to_json(diagnostic));
                }
                array.close();
        } else {
                for (const Diagnostic& diagnostic : diagnostics) {
                        output.write(to_line(diagnostic) + "\n");
                }
                if (!failed && options.legend) {
                        output.write(summary(*parsed.policy));
                }
        }
        return output.finish(failed ? kExitFailed : kExitOk);
}

}  // namespace sockbroker::ctl
