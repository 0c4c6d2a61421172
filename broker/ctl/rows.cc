// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs list and bindings: rows of the broker as a table or as JSON, which streams.
#include <fmt/format.h>

#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

struct RowVerb {
        std::string_view request;
        std::vector<Table::Column> columns;
        std::vector<std::string> (*cells)(const Json& row);
        std::string_view noun;
};

int show_rows(const Options& options, const RowVerb& verb) {
        Output output(options);
        JsonArray array(output, options.json);
        Table table(verb.columns);
        bool understood = true;
        const auto answer = ask(options, verb.request, [&](std::string_view line) {
                if (options.json != JsonMode::kOff) {
                        array.add_line(line);
                } else if (const std::optional<Json> row = parse_row(line)) {
                        table.add(verb.cells(*row));
                } else {
                        understood = false;
                }
        });
        if (!answer) {
                return output.finish(answer.error());
        }
        if (answer->result != "ok") {
                return output.finish(report_refusal(*answer));
        }
        if (options.json != JsonMode::kOff) {
                array.close();
        } else {
                output.write(table.render(options.legend, output.colour()));
                if (options.legend) {
                        output.write(fmt::format("\n{} listed.\n", count(table.rows(), verb.noun)));
                }
        }
        if (!understood) {
                complain("the broker sent rows that are no JSON objects, are tool and broker of one version?");
        }
        return output.finish(understood ? kExitOk : kExitFailed);
}

std::int64_t time_of(const Json& row) {
        const auto since = row.find("since");
        return since != row.end() && since->is_number_integer() ? since->get<std::int64_t>() : 0;
}

}  // namespace

int show_list(const Options& options) {
        return show_rows(options, {.request = "VERB=list\n",
                                   .columns = {{"SERVICE"},
                                               {"PROTOCOL"},
                                               {"FAMILY"},
                                               {"BOUND"},
                                               {"UNIT"},
                                               {"UID", true},
                                               {"PID", true},
                                               {"STATE"},
                                               {"SINCE"},
                                               {"COOKIE"}},
                                   .cells =
                                           [](const Json& row) {
                                                   return std::vector<std::string>{
                                                           cell(row, "service"),      cell(row, "protocol"),
                                                           cell(row, "family"),       cell(row, "bound"),
                                                           cell(row, "unit"),         cell(row, "uid"),
                                                           cell(row, "pid"),          cell(row, "state"),
                                                           format_time(time_of(row)), cell(row, "cookie")};
                                           },
                                   .noun = "socket"});
}

int show_bindings(const Options& options) {
        return show_rows(options, {.request = "VERB=bindings\n",
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
                                                           cell(row, "service"),
                                                           cell(row, "protocol"),
                                                           cell(row, "prefix", "any"),
                                                           cell(row, "ports", "*"),
                                                           cell(row, "source", "any"),
                                                           cell(row, "interface", "any"),
                                                           cell(row, "when_absent"),
                                                           fmt::format("{}:{}", cell(row, "file"), cell(row, "line"))};
                                           },
                                   .noun = "binding"});
}

}  // namespace sockbroker::ctl
