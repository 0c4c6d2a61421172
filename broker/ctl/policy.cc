// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs reload and verify: what is wrong with a policy, each place on a line of its own. verify asks no broker
// and needs no privilege: it runs the same code on the same files.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <span>
#include <string_view>

#include "broker/base/interface_index.h"
#include "broker/base/printable.h"
#include "broker/base/standard_streams.h"
#include "broker/ctl/as_broker.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/change_row.h"
#include "broker/ctl/directory.h"
#include "broker/ctl/host_facts.h"
#include "broker/ctl/named_directory.h"
#include "broker/ctl/netns.h"
#include "broker/ctl/reach.h"
#include "broker/ctl/render.h"
#include "broker/ctl/silent_files.h"
#include "broker/ctl/verbs.h"
#include "broker/policy/decide.h"
#include "broker/policy/files.h"
#include "broker/policy/findings.h"
#include "broker/policy/read_files.h"
#include "broker/protocol/request.h"
#include "broker/registry/check_rules.h"

namespace sockbroker::ctl {

namespace {

// The first errors and the first warnings, for systemd runs this with each reload of the unit: what is written goes
// into the journal, a line an entry.
class Glance {
public:
        void show(const Diagnostic& diagnostic) {
                auto& kind = diagnostic.severity == Severity::kError ? errors_ : warnings_;
                if (++kind <= kShown) {
                        print_to_stderr(to_line(diagnostic) + "\n");
                }
        }
        void end() const {
                const auto more = [](std::size_t count) { return count - std::min(count, kShown); };
                if (const auto rest = more(errors_) + more(warnings_); rest > 0) {
                        complain(fmt::format("{} more, all of them by: sockbrokerctl verify", rest));
                }
        }

private:
        static constexpr std::size_t kShown = 10;
        std::size_t errors_ = 0;
        std::size_t warnings_ = 0;
};

// What a reload did beside taking the policy: sockets that it took away, and whether it is on trial.
class Consequences {
public:
        void take(const Json& row) {
                if (++lost_ <= kShown) {
                        text_ += describe_change(row);
                }
        }
        void on_trial_until(std::int64_t usec) { until_ = usec; }
        [[nodiscard]] std::string text() const {
                std::string all = text_;
                if (lost_ > kShown) {
                        all += fmt::format(
                                "! {} more sockets were taken away, all of them: journalctl -u sockbrokerd\n",
                                lost_ - kShown);
                }
                if (lost_ > 0) {
                        all += "What was taken away does not come back by itself: once policy admits it again, restart "
                               "the "
                               "unit that registered it.\n";
                }
                if (until_ != 0) {
                        all += fmt::format(
                                "On trial: the policy before comes back {}, unless: sockbrokerctl reload --keep\n",
                                format_time(until_));
                }
                return all;
        }

private:
        static constexpr std::size_t kShown = 10;
        std::string text_;
        std::size_t lost_ = 0;
        std::int64_t until_ = 0;
};

// When the policy in force is to be taken back, in microseconds since the epoch; 0: it is not, or nobody says.
std::int64_t trial_until(ControlClient& client) {
        std::int64_t until = 0;
        (void)client.call("VERB=status\n", {}, [&](std::string_view line) {
                const auto row = parse_row(line);
                const auto policy = row ? row->value("policy", Json::object()) : Json::object();
                const auto at = policy.is_object() ? policy.find("trial_until") : policy.end();
                if (at != policy.end() && at->is_number_integer()) {
                        until = at->get<std::int64_t>();
                }
        });
        return until;
}

std::string summary(const Policy& policy) {
        std::size_t bindings = 0;
        for (const Service& service : policy.services) {
                // As the verb bindings shows them: a bare port stands twice, once a family, and is one binding to
                // whoever wrote it.
                for (const Binding& binding : service.bindings) {
                        const Family family = binding.prefix.address.family;
                        if (!binding.bare || family == Family::kIpv4 || !any_source(service)) {
                                bindings += count_client_filters(service, family);
                        }
                }
        }
        return fmt::format("The policy is valid: {}, {}, {}.\n", count(policy.files.size(), "file"),
                           count(policy.services.size(), "service"), count(bindings, "binding"));
}

}  // namespace

int reload_policy(const Options& options) {
        if (options.keep && options.confirm.count() != 0) {
                complain("--keep and --confirm= exclude each other: keep what was loaded, or load on trial");
                return kExitUsage;
        }
        Output output(options);
        JsonArray array(output, options.json);
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return client.error();
        }
        const auto request = format_request(
                options.keep ? Request{.verb = sockbroker::Verb::kKeep}
                             : Request{.verb = sockbroker::Verb::kReload,
                                       .timeout_usec = static_cast<std::uint64_t>(options.confirm.count())});
        // It takes as long as the policy is large; whether anybody is there is soon known.
        Json broker;
        if (const auto alive = ask(*client, "VERB=version\n", {},
                                   [&](std::string_view line) { broker = parse_row(line).value_or(Json::object()); });
            !alive) {
                return alive.error();
        }
        client->set_timeout(options.timeout == kForever
                                    ? std::chrono::minutes(10)
                                    : std::chrono::ceil<std::chrono::milliseconds>(options.timeout));
        Glance glance;
        Consequences consequences;
        const auto answer = ask(*client, request, {}, [&](std::string_view line) {
                if (options.json != JsonMode::kOff) {
                        array.add_line(line);
                } else if (const std::optional<Json> row = parse_row(line)) {
                        row->contains("kind") ? consequences.take(*row) : glance.show(diagnostic_of(*row));
                }
        });
        // Of the broker's host, which systemctl reload does not run in.
        if (answer && answer->result == "ok" && !options.keep &&
            (!broker.contains("netns") || enter_netns_of_broker(options.netns, cell(broker, "netns")))) {
                for (const auto& warning : warnings_of_disk(options, {})) {
                        if (options.json != JsonMode::kOff) {
                                array.add(to_json(warning));
                        } else {
                                glance.show(warning);
                        }
                }
        }
        glance.end();
        if (!answer) {
                return output.finish(answer.error());
        }
        for (const auto& warning : answer->warnings) {  // the copy of the policy could not be written
                if (options.json != JsonMode::kOff) {
                        array.add(to_json(Diagnostic{.severity = Severity::kWarning, .message = warning}));
                }
                complain("warning: " + warning);
        }
        // not-root and the like: there was no look at the policy.
        const bool judged = answer->result == "ok" || answer->result == "malformed";
        if (options.json != JsonMode::kOff && judged) {
                array.close();
        }
        if (answer->result == "ok") {
                if (options.json == JsonMode::kOff && !options.quiet) {
                        consequences.on_trial_until(options.confirm.count() == 0 ? 0 : trial_until(*client));
                        output.write(consequences.text());
                }
                return output.finish(options.keep && !answer->warnings.empty() ? kExitFailed : kExitOk);
        }
        // Of a policy with errors nothing was malformed that this tool has sent.
        if (answer->result == "malformed") {
                complain_as(answer->result, answer->errnum, answer->message);
                return output.finish(kExitFailed);
        }
        return output.finish(report_refusal(*answer));
}

namespace {

// Absolute links of another root lead to files of this host, which are not what that root will read.
std::vector<Diagnostic> links_out_of_root(const std::vector<std::string>& config_dirs) {
        std::vector<Diagnostic> found;
        const auto look_at = [&found](const std::filesystem::path& path) {
                std::error_code no_link;
                const auto to = std::filesystem::read_symlink(path, no_link);
                if (!no_link && to.is_absolute() && to != "/dev/null") {
                        found.push_back({path, 0, Severity::kWarning,
                                         fmt::format("is a link to {}, which was looked for on this host and not below "
                                                     "--root=: make the link relative",
                                                     to.string())});
                }
        };
        for (const auto& dir : config_dirs) {
                const std::string folder = dir + "/conf.d";
                look_at(dir);
                look_at(folder);
                std::error_code error;
                std::filesystem::directory_iterator entry(folder, error);
                if (error) {
                        continue;  // it does not exist, or load_policy() has said why it cannot be opened
                }
                for (; entry != std::filesystem::directory_iterator(); entry.increment(error)) {
                        if (entry->path().extension() == ".conf") {
                                look_at(entry->path());
                        }
                }
                if (error) {
                        found.push_back({folder, 0, Severity::kError,
                                         fail(error.value(), "cannot list the directory").error().text()});
                }
        }
        return found;
}

// What was not said already.
void add_new(const std::vector<Diagnostic>& found, std::vector<Diagnostic>& diagnostics) {
        std::ranges::copy_if(found, std::back_inserter(diagnostics), [&](const Diagnostic& one) {
                return std::ranges::find(diagnostics, one) == diagnostics.end();
        });
}

// What was read as the caller, who may be less than the broker: that he may not read it says nothing of the broker.
void name_the_reader(std::span<Diagnostic> found) {
        for (Diagnostic& one : found) {
                if (::geteuid() != 0 &&
                    (one.message == no_access_to_file().text() || one.message == no_access_to_directory().text())) {
                        one.message = "you may not read it, and it was not checked: run verify as root";
                }
        }
}

// The files that were named, and no other, in that order.
ParsedPolicy parse_files(const std::vector<std::string>& paths, const PolicyLimits& limits) {
        std::vector<PolicyFile> files;
        std::vector<Diagnostic> unreadable;
        for (const auto& path : paths) {
                auto text = read_whole_file(path);
                if (text) {
                        files.push_back({path, std::move(*text)});
                } else {
                        unreadable.push_back({path, 0, Severity::kError, text.error().text()});
                }
        }
        ParsedPolicy parsed = parse_policy(files, limits);
        if (!unreadable.empty()) {
                parsed.policy.reset();
                parsed.errors += unreadable.size();
                parsed.diagnostics.insert(parsed.diagnostics.begin(), unreadable.begin(), unreadable.end());
        }
        return parsed;
}

}  // namespace

int verify_policy(const Options& options) {
        // What others may keep this waiting for comes first; the time that a large policy takes is not counted.
        const auto patience = patience_of(options);
        auto start = Deadline::clock::now();
        if (const auto silent = first_silent(options.config_dirs, options.arguments, deadline_after(start, patience))) {
                complain(silent->to_string());
                return kExitFailed;
        }
        if (const std::string slip = slip_of_named(options); !slip.empty()) {
                complain(slip);
                return kExitFailed;
        }
        const std::vector<std::string>& dirs = options.config_dirs;
        const bool of_files = !options.arguments.empty();
        const bool of_host = !options.offline && options.root.empty();
        // A broker that was given a directory by hand is whoever started it.
        const auto user = !of_files && of_host && options.config_dir.empty()
                                  ? ids_of_user(kBrokerUser, deadline_after(start, patience / 2))
                                  : std::nullopt;
        std::vector<Diagnostic> found_by_broker;
        if (!of_files && of_host) {
                auto found = read_as_broker(options, user && ::geteuid() == 0 ? &*user : nullptr,
                                            deadline_after(start, patience));
                if (!found) {
                        complain(found.error().text());
                        return kExitFailed;
                }
                found_by_broker = *std::move(found);
        }
        const auto waited = Deadline::clock::now() - start;
        const ParsedBrokerConfig config = load_broker_config(dirs);
        const ParsedPolicy parsed = of_files ? parse_files(options.arguments, config.config.limits)
                                             : load_policy(dirs, config.config.limits);

        std::vector<Diagnostic> diagnostics = of_files ? std::vector<Diagnostic>() : config.diagnostics;
        diagnostics.insert(diagnostics.end(), parsed.diagnostics.begin(), parsed.diagnostics.end());
        const auto read_by_caller = diagnostics.size();
        if (!options.root.empty() && !of_files) {
                add_new(links_out_of_root(dirs), diagnostics);
        }
        if (!of_files && parsed.policy && parsed.policy->files.empty() && !read_policy_files(dirs).any) {
                diagnostics.push_back({dirs.front() + "/conf.d", 0, Severity::kWarning,
                                       "there is no policy file, here or in any other directory, so there is no "
                                       "service"});
        }
        add_new(found_by_broker, diagnostics);  // what the caller may not read is found again, in the same words
        name_the_reader(std::span(diagnostics).first(read_by_caller));
        if (user && ::geteuid() != 0) {
                add_new(out_of_reach(dirs, *user), diagnostics);
        }
        if (parsed.policy) {
                std::ranges::move(check_rules(*parsed.policy, config.config.limits.max_bindings),
                                  std::back_inserter(diagnostics));
        }
        if (parsed.policy && of_host) {
                start = Deadline::clock::now() - waited;
                std::ranges::move(first_of_each_file(unknown_interfaces(*parsed.policy, interfaces_now())),
                                  std::back_inserter(diagnostics));
                const auto accounts = accounts_of(*parsed.policy, deadline_after(start, patience));
                std::ranges::move(first_of_each_file(unknown_accounts(*parsed.policy, accounts)),
                                  std::back_inserter(diagnostics));
                std::ranges::move(warnings_of_host(options, *parsed.policy, true), std::back_inserter(diagnostics));
        }
        const bool failed = !parsed.policy || std::ranges::any_of(diagnostics, [](const Diagnostic& d) {
                return d.severity == Severity::kError;
        });
        const bool refused = failed || (options.strict && !diagnostics.empty());

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
        return output.finish(refused ? kExitFailed : kExitOk);
}

}  // namespace sockbroker::ctl
