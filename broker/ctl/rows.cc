// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs list and bindings: rows of the broker as a table or as JSON, which streams.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/running.h"
#include "broker/ctl/selection.h"
#include "broker/ctl/socket_queues.h"
#include "broker/ctl/stopped.h"
#include "broker/ctl/triggered.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

struct RowVerb {
        std::string_view request;
        std::vector<Table::Column> columns;
        std::vector<std::string> (*cells)(const Json& row);
        std::string_view noun;
        bool (*takes)(const Selection& selection, const Json& row);
        void (*complete)(Json& row);  // none: rows stay as the broker sends them
        // The same cells without parsing, for there may be a million rows; empty: parse it.
        std::vector<std::string> (*quick_cells)(std::string_view line);
};

// Into a table, or into an array as they come.
class RowWriter {
public:
        RowWriter(const Options& options, const RowVerb& verb, const Selection& selection)
                : options_(options),
                  verb_(verb),
                  selection_(selection),
                  output_(options),
                  array_(output_, options.json),
                  table_(verb.columns) {}

        void take(std::string_view line) {
                if (json() && selection_.all() && verb_.complete == nullptr) {
                        array_.add_line(line);
                } else if (is_surely_left_out(line) || took_quickly(line)) {
                        return;
                } else if (const std::optional<Json> row = parse_row(line)) {
                        take(*row);
                } else {
                        understood_ = false;
                }
        }

        void take(Json row) {
                if (!verb_.takes(selection_, row)) {
                        return;
                }
                if (!selection_.all() && (seen_.empty() || seen_.back() != cell(row, "service"))) {
                        seen_.push_back(cell(row, "service"));  // rows of a service come together
                }
                if (verb_.complete != nullptr) {
                        verb_.complete(row);
                }
                if (json()) {
                        array_.add(row);
                } else {
                        table_.add(verb_.cells(row));
                }
        }

        [[nodiscard]] const std::vector<std::string>& seen() const { return seen_; }

        // `unknown`: what was asked for and nobody has.
        int finish(const std::vector<std::string>& unknown = {}) {
                for (const auto& name : unknown) {
                        complain_as("unknown-service", ENOENT, fmt::format("no policy names a service \"{}\"", name));
                }
                if (json()) {
                        if (unknown.empty() || !seen_.empty()) {  // else the failure is all that there is to print
                                array_.close();
                        }
                } else {
                        if (!table_.each_line(options_.legend, output_.colour(), output_.width(),
                                              [&](std::string_view line) { output_.write(line); })) {
                                complain("cannot read rows back that were put aside, is there room in /tmp?");
                                return output_.finish(kExitFailed);
                        }
                        if (options_.legend) {
                                output_.write(fmt::format("\n{} listed.\n", count(table_.rows(), verb_.noun)));
                        }
                }
                if (!understood_) {
                        complain("the broker sent rows that are no JSON objects, are tool and broker of one version?");
                }
                return output_.finish(!understood_ ? kExitFailed : unknown.empty() ? kExitOk : kExitUnknownService);
        }
        int finish(int status) { return output_.finish(status); }

private:
        [[nodiscard]] bool took_quickly(std::string_view line) {
                if (json() || verb_.quick_cells == nullptr || !selection_.all()) {
                        return false;
                }
                auto cells = verb_.quick_cells(line);
                const bool taken = !cells.empty();
                if (taken) {
                        table_.add(std::move(cells));
                }
                return taken;
        }
        // Of a million rows few are asked for: the others are not parsed.
        [[nodiscard]] bool is_surely_left_out(std::string_view line) const {
                if (selection_.all()) {
                        return false;
                }
                const auto service = quick_field(line, "service");
                const auto prefix = quick_field(line, "prefix");
                return service &&
                       (prefix ? !selection_.takes_binding(std::string(*service), *prefix)
                               : verb_.complete != nullptr && !selection_.takes_service(std::string(*service)));
        }
        [[nodiscard]] bool json() const { return options_.json != JsonMode::kOff; }

        const Options& options_;
        const RowVerb& verb_;
        const Selection& selection_;
        Output output_;
        JsonArray array_;
        Table table_;
        std::vector<std::string> seen_;  // services with rows, of those that were asked for
        bool understood_ = true;
};

// Names that stand in no row and are no service of the policy either, which may well have services without a socket.
std::expected<std::vector<std::string>, int> unknown_names(const Selection& selection,
                                                           const std::vector<std::string>& seen,
                                                           ControlClient& client) {
        auto missing = selection.missing(seen);
        if (missing.empty()) {
                return missing;
        }
        const auto answer = ask(client, "VERB=status\n", {}, [&](std::string_view line) {
                if (const auto row = parse_row(line); row && row->contains("service")) {
                        missing = Selection(missing).missing({cell(*row, "service")});
                }
        });
        if (!answer) {
                return std::unexpected(answer.error());
        }
        return missing;
}

int show_rows(const Options& options, const RowVerb& verb, const Selection& selection, ControlClient& client) {
        RowWriter rows(options, verb, selection);
        const auto answer = ask(client, verb.request, {}, [&](std::string_view line) { rows.take(line); });
        if (!answer) {
                return rows.finish(answer.error());
        }
        if (answer->result != "ok") {
                return rows.finish(report_refusal(*answer));
        }
        const auto unknown = unknown_names(selection, rows.seen(), client);
        return unknown ? rows.finish(*unknown) : rows.finish(unknown.error());
}

bool takes_service(const Selection& selection, const Json& row) {
        return selection.takes_service(cell(row, "service", ""));
}

std::int64_t time_of(const Json& row) {
        const auto since = row.find("since");
        return since != row.end() && since->is_number_integer() ? since->get<std::int64_t>() : 0;
}

// A listener's accept queue "of its limit", the bytes and drops of a UDP socket.
std::string queue_of(const Json& row) {
        const auto queue = cell(row, "queue");
        if (cell(row, "protocol") == "tcp") {
                return queue == "-" ? queue : fmt::format("{}/{}", queue, cell(row, "queue_limit"));
        }
        const auto drops = cell(row, "drops");
        return drops == "-" || drops == "0" ? queue : fmt::format("{} ({} dropped)", queue, drops);
}

void complete_socket(Json& row) {
        static SocketQueues queues;
        static Triggered triggered;
        queues.add_to(row);
        triggered.add_to(row);
}

const RowVerb kList{.request = "VERB=list\n",
                    .columns = {{"SERVICE"},
                                {"PROTOCOL"},
                                {"FAMILY"},
                                {"BOUND"},
                                {"UNIT"},
                                {"TRIGGERS", false, true},
                                {"UID", true},
                                {"PID", true},
                                {"STATE"},
                                {"QUEUE", true},
                                {"FLOWS", true, true},
                                {"SINCE"},
                                {"COOKIE"}},
                    .cells =
                            [](const Json& row) {
                                    return std::vector<std::string>{
                                            cell(row, "service"), cell(row, "protocol"), cell(row, "family"),
                                            cell(row, "bound"),   cell(row, "unit"),     triggers_of(row),
                                            cell(row, "uid"),     cell(row, "pid"),      cell(row, "state"),
                                            queue_of(row),        cell(row, "flows"),    format_time(time_of(row)),
                                            cell(row, "cookie")};
                            },
                    .noun = "socket",
                    .takes = takes_service,
                    .complete = complete_socket,
                    .quick_cells = nullptr};

std::vector<std::string> binding_cells(std::string_view line) {
        constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kFields = {{{"service", "-"},
                                                                                           {"protocol", "-"},
                                                                                           {"prefix", "any"},
                                                                                           {"ports", "*"},
                                                                                           {"source", "any"},
                                                                                           {"interface", "any"},
                                                                                           {"when_absent", "-"}}};
        std::vector<std::string> cells;
        cells.reserve(kFields.size() + 1);
        for (const auto& [name, none] : kFields) {
                const auto value = quick_field(line, name);
                if (!value) {
                        return {};
                }
                cells.emplace_back(value->empty() ? none : *value);
        }
        const auto file = quick_field(line, "file");
        const auto number = quick_field(line, "line");
        if (!file || !number) {
                return {};
        }
        cells.push_back(fmt::format("{}:{}", *file, *number));
        return cells;
}

const RowVerb kBindings{
        .request = "VERB=bindings\n",
        .columns = {{"SERVICE"},
                    {"PROTOCOL"},
                    {"PREFIX"},
                    {"PORTS"},
                    {"SOURCE"},
                    {"INTERFACE"},
                    {"WHEN-ABSENT"},
                    {"FILE"}},
        .cells =
                [](const Json& row) {
                        return std::vector<std::string>{
                                cell(row, "service"),       cell(row, "protocol"),
                                cell(row, "prefix", "any"), cell(row, "ports", "*"),
                                cell(row, "source", "any"), cell(row, "interface", "any"),
                                cell(row, "when_absent"),   fmt::format("{}:{}", cell(row, "file"), cell(row, "line"))};
                },
        .noun = "binding",
        .takes = [](const Selection& selection, const Json& row) { return selection.takes_binding(row); },
        .complete = nullptr,
        .quick_cells = binding_cells};

}  // namespace

int show_list(const Options& options) {
        const Selection selection(options.arguments);
        auto client = try_connect(options);
        const bool nobody = !client && nobody_there(client.error());
        const int status =
                client ? show_rows(options, kList, selection, *client) : report_unreachable(options, client.error());
        // One that hangs knows more than the pins tell; one that does not come up is none.
        if (!nobody && (failure().result != kNoAnswer || has_output() || !is_not_up_by_systemd(options))) {
                return status;
        }
        const auto stopped = look_at_pins(options);
        complain(describe(stopped));
        if (!stopped.dispatches.value_or(false) || !stopped.why_unknown.empty()) {
                return status;
        }
        RowWriter rows(options, kList, selection);
        for (const auto& row : stopped.sockets) {
                rows.take(row);
        }
        std::vector<std::string> services;
        std::ranges::transform(stopped.services, std::back_inserter(services),
                               [](const Json& service) { return cell(service, "service"); });
        return rows.finish(selection.missing(services));
}

int show_bindings(const Options& options) {
        // A prefix with a slip in it, which no name of a service and no pattern can be.
        const auto slip = std::ranges::find_if(options.arguments, [](const std::string& argument) {
                const bool class_of_pattern = argument.find("[:") != std::string::npos;
                return argument.find_first_of(class_of_pattern ? "/" : "/:") != std::string::npos &&
                       !is_prefix(argument);
        });
        if (slip != options.arguments.end()) {
                complain(fmt::format("\"{}\" is no service, no address and no prefix", *slip));
                return kExitUsage;
        }
        auto client = connect(options);
        return client ? show_rows(options, kBindings, Selection::of_bindings(options.arguments), *client)
                      : client.error();
}

}  // namespace sockbroker::ctl
