// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb status: the broker in a few lines, then a table of its services with their counters.
#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <span>

#include "broker/base/printable.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/host_facts.h"
#include "broker/ctl/render.h"
#include "broker/ctl/running.h"
#include "broker/ctl/selection.h"
#include "broker/ctl/stopped.h"
#include "broker/ctl/triggered.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

// A part of the broker object; an empty object where an other version has none.
Json part(const Json& broker, const char* name) {
        const auto at = broker.find(name);
        return at != broker.end() && at->is_object() ? *at : Json::object();
}

std::uint64_t number(const Json& object, const char* name) {
        const auto at = object.find(name);
        return at != object.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
}

std::string since(const Json& object, const char* field = "since") {
        return format_time(static_cast<std::int64_t>(number(object, field)));
}

std::string describe(const Json& broker, bool colour) {
        const Json policy = part(broker, "policy");
        const Json sockets = part(broker, "sockets");
        const Json capacity = part(broker, "capacity");
        const std::string state = cell(broker, "state");
        const std::string_view paint = !colour ? "" : state == "running" ? "\x1b[1;32m" : "\x1b[1;31m";
        const std::string_view plain = colour ? "\x1b[0m" : "";

        std::string text = fmt::format("{}●{} sockbrokerd {}\n", paint, plain, cell(broker, "version"));
        const auto line = [&](std::string_view name, std::string_view value) {
                text += fmt::format("{:>10}: {}\n", name, value);
        };
        const auto* began = state == "running" ? "since" : "degraded_since";
        line("State", fmt::format("{}{}{} since {}", paint, state, plain, since(broker, began)));
        if (!cell(broker, "reason", "").empty()) {
                line("Reason", cell(broker, "reason"));
        }
        line("Policy", fmt::format("{}, {}, {}; applied {}", count(number(policy, "files"), "file"),
                                   count(number(policy, "services"), "service"),
                                   count(number(policy, "bindings"), "binding"), since(policy)));
        if (const auto digest = cell(policy, "digest", ""); !digest.empty()) {
                line("Digest", digest);
        }
        if (number(policy, "trial_until") != 0) {
                line("Trial", fmt::format("the policy before comes back {}, unless: sockbrokerctl reload --keep",
                                          since(policy, "trial_until")));
        }
        // One that a good reload has followed is of no interest any more, to people.
        if (const Json refused = part(broker, "refused_policy");
            refused.contains("digest") && (state != "running" || number(refused, "since") > number(policy, "since"))) {
                line("Rejected", fmt::format("policy {} at {}", cell(refused, "digest"), since(refused)));
        }
        line("Sockets", fmt::format("{} live, {} held, {} draining", cell(sockets, "live"), cell(sockets, "held"),
                                    cell(sockets, "draining")));
        line("Capacity",
             fmt::format("{}, {}, {}", count(number(capacity, "bindings"), "binding"),
                         count(number(capacity, "services"), "service"), count(number(capacity, "sockets"), "socket")));
        if (const Json routes = part(broker, "routes"); number(routes, "local") + number(routes, "announced") > 0) {
                line("Routes",
                     fmt::format("{} local, {} announced", number(routes, "local"), number(routes, "announced")));
        }
        const auto connections = number(broker, "connections_refused");
        line("Refused", count(number(broker, "refused"), "request") +
                                (connections == 0 ? "" : ", " + count(connections, "connection")));
        if (number(broker, "journal_lost") != 0) {
                line("Journal", fmt::format("{} entries lost", number(broker, "journal_lost")));
        }
        if (const auto warnings = broker.find("warnings"); warnings != broker.end() && warnings->is_array()) {
                for (const auto& warning : *warnings) {
                        if (warning.is_string()) {
                                line("Warning", printable(warning.get<std::string>()));
                        }
                }
        }
        return text;
}

std::uint64_t all_errors(const Json& service) {
        std::uint64_t sum = 0;
        const Json errors = part(service, "errors");
        for (const auto& [cause, value] : errors.items()) {
                sum += value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
        }
        return sum;
}

std::string unless_zero(const Json& service, const char* field) {
        return number(service, field) == 0 ? "-" : cell(service, field);
}

constexpr const char* kNotAnnounced = "-";  // policy does not ask for it

std::string announced(const Json& service) {
        const auto flag = [&](const char* name) {
                const auto at = service.find(name);
                return at != service.end() && at->is_boolean() ? std::optional(at->get<bool>()) : std::nullopt;
        };
        const auto said = flag("announced");
        if (flag("drained") == std::optional(true)) {
                return "drained";
        }
        return !said ? kNotAnnounced : *said ? "yes" : "no";
}

std::vector<std::string> names_of(const std::vector<Json>& services) {
        std::vector<std::string> names;
        names.reserve(services.size());
        for (const Json& service : services) {
                names.push_back(cell(service, "service"));
        }
        return names;
}

// Like those of systemctl: as a whole, or of the services that were named.
int exit_status(const Json& broker, const Selection& selection, const std::vector<Json>& services) {
        if (selection.all()) {
                return cell(broker, "state") == "running"    ? kExitOk
                       : cell(broker, "state") == "degraded" ? kExitFailed
                                                             : kExitUnreachable;
        }
        const auto names = names_of(services);
        if (!selection.missing(names).empty()) {
                return kExitUnknownService;
        }
        const auto dispatches = broker.find("dispatches");
        const bool none_serves = dispatches != broker.end() && *dispatches == Json(false);
        const bool all_serve = !none_serves && std::ranges::all_of(services, [&](const Json& service) {
                return !selection.takes_service(cell(service, "service")) || number(service, "live") > 0;
        });
        return all_serve ? kExitOk : kExitUnreachable;
}

// `unknown`: why nobody here can say which services there are, else empty.
int show(const Options& options, Json broker, const std::vector<Json>& services, const std::string& head,
         const std::string& unknown = {}) {
        const Selection selection(options.arguments);
        Output output(options);
        const int status = unknown.empty() ? exit_status(broker, selection, services) : kExitUnreachable;
        const auto complain_of_missing = [&] {
                for (const auto& missing : selection.missing(names_of(services))) {
                        complain_as("unknown-service", ENOENT,
                                    fmt::format("no policy names a service \"{}\"", missing));
                }
        };
        if (options.json != JsonMode::kOff) {
                broker["services"] = Json::array();
                for (const Json& service : services) {
                        if (selection.takes_service(cell(service, "service"))) {
                                broker["services"].push_back(service);
                        }
                }
                output.write(dump(broker, options.json));
                if (unknown.empty()) {
                        complain_of_missing();
                }
                return output.finish(status);
        }
        std::vector<Table::Column> columns{
                {"SERVICE"},       {"SOCKETS", true},  {"HELD", true, true}, {"DRAINING", true, true},
                {"LOOKUPS", true}, {"ASSIGNED", true}, {"NO-SOCKET", true},  {"ERRORS", true}};
        columns.push_back({"TRIGGERS", false, true});
        // Where nothing has to do with routes it would only take room.
        const bool announces =
                std::ranges::any_of(services, [](const Json& service) { return announced(service) != kNotAnnounced; });
        if (announces) {
                columns.push_back({"ANNOUNCED"});
        }
        Table table(std::move(columns));
        for (const Json& service : services) {
                if (selection.takes_service(cell(service, "service"))) {
                        std::vector<std::string> cells{
                                cell(service, "service"),     cell(service, "sockets"),
                                unless_zero(service, "held"), unless_zero(service, "draining"),
                                cell(service, "lookups"),     cell(service, "assigned"),
                                cell(service, "no_socket"),   std::to_string(all_errors(service)),
                                triggers_of(service)};
                        if (announces) {
                                cells.push_back(announced(service));
                        }
                        table.add(std::move(cells));
                }
        }
        if (selection.all()) {
                output.write((head.empty() ? describe(broker, output.colour()) : head) + "\n");
        }
        if (unknown.empty()) {
                output.write(table.render(options.legend, output.colour(), output.width()));
                if (options.legend) {
                        output.write(fmt::format("\n{} listed.\n", count(table.rows(), "service")));
                }
        } else {
                if (!selection.all()) {
                        complain_as("stopped", ESHUTDOWN, unknown);
                }
                return output.finish(status);
        }
        complain_of_missing();
        return output.finish(status);
}

int show_stopped(const Options& options) {
        const Stopped stopped = look_at_pins(options);
        Json broker = {{"version", nullptr},
                       {"state", "stopped"},
                       {"reason", describe(stopped)},
                       {"dispatches", stopped.dispatches ? Json(*stopped.dispatches) : Json(nullptr)}};
        return show(options, std::move(broker), stopped.services,
                    fmt::format("○ sockbrokerd\n{:>10}: not running, {}\n", "State", describe(stopped)),
                    !stopped.dispatches || !stopped.why_unknown.empty()
                            ? "what serves is not known: " + describe(stopped)
                    : *stopped.dispatches ? std::string()
                                          : "nothing serves: " + describe(stopped));
}

// The failure was told; what the kernel does meanwhile is what root wants to know next.
int show_hung(const Options& options, int status) {
        if (is_not_up_by_systemd(options)) {
                return show_stopped(options);
        }
        if (options.json == JsonMode::kOff) {
                if (const Stopped stopped = look_at_pins(options); stopped.dispatches.value_or(false)) {
                        (void)show(
                                options, {}, stopped.services,
                                fmt::format("● sockbrokerd\n{:>10}: does not answer, {}\n", "State", describe(stopped)),
                                stopped.why_unknown);
                }
        }
        return status;
}

// The services behind .socket units: PID 1 keeps the socket, so that `live` says nothing of them.
void add_triggered(ControlClient& client, Json& broker, std::vector<Json>& services) {
        constexpr std::size_t kWarned = 5;
        if (sd_booted() <= 0 ||
            std::ranges::none_of(services, [](const Json& service) { return number(service, "sockets") > 0; })) {
                return;
        }
        Triggered triggered;
        std::map<std::string, Json> found;
        (void)client.call("VERB=list\n", {}, [&](std::string_view line) {
                auto row = parse_row(line);
                if (!row) {
                        return;
                }
                triggered.add_to(*row);
                if (row->contains("triggers")) {
                        found.try_emplace(cell(*row, "service"), *row);
                }
        });
        std::size_t failed = 0;
        for (Json& service : services) {
                const auto at = found.find(cell(service, "service"));
                if (at == found.end()) {
                        continue;
                }
                service["triggers"] = at->second["triggers"];
                service["triggers_state"] = at->second["triggers_state"];
                if (cell(service, "triggers_state") == "failed" && ++failed <= kWarned) {
                        broker["warnings"].push_back(
                                fmt::format("{}: PID 1 keeps its sockets, and {}, which is to answer, has failed: "
                                            "systemctl status {}",
                                            at->first, cell(service, "triggers"), cell(service, "triggers")));
                }
        }
}

// What the policy in force does to this host, where that is the one on disk.
void add_warnings_of_host(const Options& options, Json& broker) {
        constexpr std::size_t kShown = 10;
        if (cell(broker, "state") != "running") {
                return;  // that they differ is the very reason, and told
        }
        const auto digest = cell(part(broker, "policy"), "digest", "");
        const auto warnings = digest.empty() ? std::vector<Diagnostic>() : warnings_of_disk(options, digest);
        if (warnings.empty()) {
                return;
        }
        auto& told = broker["warnings"];
        for (const auto& warning : std::span(warnings).first(std::min(kShown, warnings.size()))) {
                told.push_back(warning.to_string());
        }
        if (warnings.size() > kShown) {
                told.push_back(fmt::format("{} more, all of them by: sockbrokerctl verify", warnings.size() - kShown));
        }
}

}  // namespace

int show_status(const Options& options) {
        auto client = try_connect(options);
        if (!client && nobody_there(client.error())) {
                (void)report_unreachable(options, client.error());
                return show_stopped(options);
        }
        if (!client) {
                return show_hung(options, report_unreachable(options, client.error()));
        }
        Json broker;
        std::vector<Json> services;
        bool understood = true;
        const auto answer = ask(*client, "VERB=status\n", {}, [&](std::string_view line) {
                std::optional<Json> row = parse_row(line);
                if (!row) {
                        understood = false;
                } else if (broker.is_null()) {
                        broker = std::move(*row);
                } else {
                        services.push_back(std::move(*row));
                }
        });
        if (!answer) {
                return show_hung(options, answer.error());
        }
        if (answer->result != "ok") {
                return report_refusal(*answer);
        }
        if (!understood || broker.is_null()) {
                complain("the broker's status is not what this tool knows, are tool and broker of one version?");
                return kExitFailed;
        }
        add_warnings_of_host(options, broker);
        add_triggered(*client, broker, services);
        return show(options, std::move(broker), services, "");
}

}  // namespace sockbroker::ctl
