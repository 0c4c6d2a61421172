// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs reload and verify: what is wrong with a policy, each place on a line of its own. verify asks no broker
// and needs no privilege: it runs the same code on the same files.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

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

namespace {

// What is wrong with the folder of --config-dir=, empty if nothing. One that is not there is empty to the broker; one
// that was named here is a slip of the pen, and so is a policy file, or the conf.d itself.
std::string slip_of_config_dir(const std::string& dir) {
        struct stat status {};
        if (::stat(dir.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
                return fmt::format("--config-dir={} is not a folder: give the one whose conf.d holds the file", dir);
        }
        if (::access(dir.c_str(), R_OK | X_OK) != 0) {
                return fmt::format("cannot read the folder {} given by --config-dir: {}", dir, std::strerror(errno));
        }
        const bool whole = ::access((dir + "/conf.d").c_str(), F_OK) == 0;
        const std::string_view name = std::string_view(dir).substr(0, dir.find_last_not_of('/') + 1);
        if (!whole && (name == "conf.d" || name.ends_with("/conf.d"))) {
                return fmt::format("--config-dir={} has no conf.d in it: give the folder above", dir);
        }
        return {};
}

}  // namespace

int verify_policy(const Options& options) {
        if (const std::string slip = slip_of_config_dir(options.config_dir);
            !options.config_dir.empty() && !slip.empty()) {
                complain(slip);
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
