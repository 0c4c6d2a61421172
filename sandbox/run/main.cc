// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-run: see sockbroker-run(1).
#include <fmt/format.h>

#include <cstdio>

#include "broker/base/standard_streams.h"
#include "sandbox/run/options.h"
#include "sandbox/run/run.h"

int main(int argc, char* argv[]) {
        sockbroker::open_standard_streams();
        const auto options = sockbroker::launcher::parse_options(argc, argv);
        if (!options) {
                sockbroker::launcher::complain(options.error().text());
                return sockbroker::launcher::kExitUsage;
        }
        if (options->help || options->version) {
                fmt::print("{}", options->help ? sockbroker::launcher::help_text()
                                               : "sockbroker-run " SOCKBROKER_VERSION "\n");
                return std::fflush(stdout) == 0 ? 0 : sockbroker::launcher::kExitFailed;
        }
        return sockbroker::launcher::run(*options);
}
