// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb version: of this tool, and of the broker that runs, which may be another after an upgrade.
#include <fmt/format.h>

#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

int show_version(const Options& options) {
        Output output(options);
        if (options.json == JsonMode::kOff) {
                output.write(fmt::format("sockbrokerctl {}\n", SOCKBROKER_VERSION));
        }
        Json broker;
        const auto answer = ask(options, "VERB=version\n",
                                [&](std::string_view line) { broker = parse_row(line).value_or(Json::object()); });
        if (!answer) {
                return output.finish(answer.error());
        }
        if (answer->result != "ok") {
                return output.finish(report_refusal(*answer));
        }
        broker.erase("netns");  // for the tool itself
        if (options.json != JsonMode::kOff) {
                output.write(dump(broker, options.json));
        } else {
                output.write(fmt::format("sockbrokerd   {}, layout {} of the pinned maps\n", cell(broker, "version"),
                                         cell(broker, "layout")));
        }
        return output.finish(kExitOk);
}

}  // namespace sockbroker::ctl
