// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb unload: the broker is asked to take dispatch away; where none runs, root takes away the pins itself.
#include <fmt/format.h>
#include <unistd.h>

#include "broker/ctl/ask.h"
#include "broker/ctl/output.h"
#include "broker/ctl/verbs.h"
#include "broker/dataplane/dataplane.h"
#include "broker/routes/withdraw.h"

namespace sockbroker::ctl {

namespace {

int unload_pins(const Options& options) {
        if (const auto done = routes::withdraw_announcements(options.runtime_dir + "/routes", kShortTimeout); !done) {
                complain(done.error().text());
        }
        const std::string pins = options.bpffs + "/dispatch";
        if (const Result<void> unloaded = Dataplane::unload(pins); !unloaded) {
                complain(unloaded.error().text());
                return kExitFailed;
        }
        return kExitOk;
}

}  // namespace

int unload_dispatch(const Options& options) {
        Result<ControlClient> client = try_connect(options);
        if (!client) {
                // Only where nobody is there: a broker that could be asked must not lose its pins behind its back.
                const bool nobody = client.error().errnum == ENOENT || client.error().errnum == ECONNREFUSED;
                if (nobody && ::geteuid() == 0) {
                        return unload_pins(options);
                }
                if (nobody) {
                        complain_as("unreachable", client.error().errnum, client.error().text());
                        complain("without a broker only root can take dispatch away");
                        return kExitUnreachable;
                }
                return report_unreachable(options, client.error());
        }
        const auto answer = ask(*client, "VERB=unload\n", {}, [](std::string_view) {});
        if (!answer) {
                return answer.error();
        }
        report_warnings(*answer, "");
        return answer->result == "ok" ? kExitOk : report_refusal(*answer);
}

}  // namespace sockbroker::ctl
