// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb diff: what a reload would do.
#include <fmt/format.h>

#include "broker/base/standard_streams.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/change_row.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

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
                        print_to_stderr(to_line(diagnostic_of(*row)) + "\n");  // the policy would be refused
                } else if (row) {
                        changes++;
                        options.json != JsonMode::kOff ? array.add_line(line) : output.write(describe_change(*row));
                }
        });
        if (!answer) {
                return output.finish(answer.error());
        }
        if (answer->result == "malformed") {  // the policy; its errors were shown
                complain_as(answer->result, answer->errnum, answer->message);
                return output.finish(kExitFailed);
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
