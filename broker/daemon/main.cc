// SPDX-License-Identifier: LGPL-2.1-or-later
#include <cstdlib>
#include <exception>

#include <fmt/format.h>

#include "broker/base/standard_streams.h"
#include "broker/daemon/links.h"
#include "broker/daemon/load.h"
#include "broker/daemon/options.h"
#include "broker/daemon/run.h"

int main(int argc, char** argv) {
        try {
                int exit_status = EXIT_SUCCESS;
                const auto options = sockbroker::parse_daemon_options(argc, argv, exit_status);
                if (!options) {
                        return exit_status;
                }
                const auto run = options->load    ? sockbroker::run_load
                                 : options->links ? sockbroker::run_links
                                                  : sockbroker::run_daemon;
                if (const auto done = run(*options); !done) {
                        sockbroker::print_to_stderr(fmt::format("sockbrokerd: {}\n", done.error().text()));
                        return EXIT_FAILURE;
                }
                return EXIT_SUCCESS;
        } catch (const std::exception& error) {
                sockbroker::print_to_stderr(fmt::format("sockbrokerd: {}\n", error.what()));
                return EXIT_FAILURE;
        }
}
