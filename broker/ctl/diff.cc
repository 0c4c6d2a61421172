// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb diff: what a reload would do.
#include <fmt/format.h>

#include "broker/base/printable.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

std::string describe_changed_binding(const Json& row) {
        std::string text = fmt::format("{} {} {} port {}", cell(row, "service"), cell(row, "protocol"),
                                       cell(row, "prefix", "any"), cell(row, "ports", "*"));
        if (const auto source = cell(row, "source", ""); !source.empty()) {
                text += " from " + source;
        }
        if (const auto interface = cell(row, "interface", ""); !interface.empty()) {
                text += " on " + interface;
        }
        if (const auto from = cell(row, "from", ""); !from.empty()) {
                text += fmt::format(", now of {}", from);
        }
        return text + fmt::format("  # {}:{}", cell(row, "file"), cell(row, "line"));
}

// A line as diff(1) would begin it: + and - for bindings, ~ for what changes, ! for what is taken away.
std::string describe(const Json& row) {
        const auto kind = cell(row, "kind");
        if (kind == "binding") {
                const auto change = cell(row, "change");
                return fmt::format("{} {}\n",
                                   change == "added"     ? '+'
                                   : change == "removed" ? '-'
                                                         : '~',
                                   describe_changed_binding(row));
        }
        if (kind == "settings") {
                std::string keys;
                for (const auto& key : row.value("settings", Json::array())) {
                        keys += fmt::format(" {}=", key.is_string() ? printable(key.get<std::string>()) : key.dump());
                }
                return fmt::format("~ {} has other{}\n", cell(row, "service"), keys);
        }
        return fmt::format("! {} loses the {} socket {} of {} (pid {}, uid {}, {}): {}\n", cell(row, "service"),
                           cell(row, "protocol"), cell(row, "bound"), cell(row, "unit", "no unit"), cell(row, "pid"),
                           cell(row, "uid"), cell(row, "state"), cell(row, "why"));
}

}  // namespace

int show_diff(const Options& options) {
        auto client = connect(options);
        if (!client) {
                return client.error();
        }
        // As for a reload: it takes as long as the policy is large.
        if (const auto alive = ask(*client, "VERB=version\n", {}, {}); !alive) {
                return alive.error();
        }
        client->set_timeout(options.timeout == kForever
                                    ? std::chrono::minutes(10)
                                    : std::chrono::ceil<std::chrono::milliseconds>(options.timeout));
        Output output(options);
        JsonArray array(output, options.json);
        std::size_t changes = 0;
        const auto answer = ask(*client, "VERB=diff\n", {}, [&](std::string_view line) {
                const auto row = parse_row(line);
                if (row && row->contains("severity")) {
                        fmt::print(stderr, "{}\n", to_line(diagnostic_of(*row)));  // the policy would be refused
                } else if (row) {
                        changes++;
                        options.json != JsonMode::kOff ? array.add_line(line) : output.write(describe(*row));
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
        } else if (options.legend && changes == 0) {
                output.write(options.quiet ? "" : "A reload would change nothing.\n");
        }
        return output.finish(changes == 0 ? kExitOk : kExitFailed);
}

}  // namespace sockbroker::ctl
