// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb import: what another program dispatches by, as the text of a policy on standard output.
#include <fmt/format.h>

#include "broker/ctl/render.h"
#include "broker/ctl/tubular.h"
#include "broker/ctl/verbs.h"
#include "broker/policy/read_files.h"

namespace sockbroker::ctl {

int import_policy(const Options& options) {
        const auto& from = options.arguments[0];
        const auto& path = options.arguments[1];
        if (from != "tubular") {
                complain(fmt::format("cannot import from \"{}\", write: sockbrokerctl import tubular FILE", from));
                return kExitUsage;
        }
        const auto text = read_whole_file(path);
        if (!text) {
                complain(fmt::format("{}: {}", path, text.error().text()));
                return kExitFailed;
        }
        const auto policy = policy_of_tubular(*text);
        if (!policy) {
                complain(fmt::format("{}: {}", path, policy.error().text()));
                return kExitFailed;
        }
        Output output(options);
        output.write(options.json == JsonMode::kOff ? *policy : dump({{"text", *policy}}, options.json));
        return output.finish(kExitOk);
}

}  // namespace sockbroker::ctl
