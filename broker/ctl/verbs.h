// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What sockbrokerctl can be asked. Each verb stands in a file of its own, takes the parsed command line, and returns
// an exit status; a new one gets a line in the table in verbs.cc.
#pragma once

#include <span>
#include <string_view>

#include "broker/ctl/options.h"

namespace sockbroker::ctl {

struct Verb {
        std::string_view name;
        std::string_view synopsis;  // "unregister SERVICE"
        std::string_view help;
        std::size_t min_arguments;
        std::size_t max_arguments;
        int (*run)(const Options& options);
        bool reads = false;  // and nothing else: never starts a broker that is stopped
};

[[nodiscard]] std::span<const Verb> verbs();

// Checks verb and arguments, then runs it; --help and --version need none.
[[nodiscard]] int run(const Options& options);

// Ends with `status`; with --json= prints as an object what was complained of, unless something was printed before.
[[nodiscard]] int end_with(const Options& options, int status);

[[nodiscard]] int show_status(const Options& options);
[[nodiscard]] int show_list(const Options& options);
[[nodiscard]] int show_bindings(const Options& options);
[[nodiscard]] int explain_packet(const Options& options);
[[nodiscard]] int show_diff(const Options& options);
[[nodiscard]] int cat_policy(const Options& options);
[[nodiscard]] int import_policy(const Options& options);
[[nodiscard]] int show_metrics(const Options& options);
[[nodiscard]] int monitor_events(const Options& options);
[[nodiscard]] int show_version(const Options& options);
[[nodiscard]] int register_sockets(const Options& options);
// With --pid=: those of a program that runs.
[[nodiscard]] int register_of_process(const Options& options);
[[nodiscard]] int retrieve_sockets(const Options& options);
[[nodiscard]] int hold_service(const Options& options);
[[nodiscard]] int drain_service(const Options& options);
[[nodiscard]] int undrain_service(const Options& options);
[[nodiscard]] int unregister_service(const Options& options);
[[nodiscard]] int reload_policy(const Options& options);
[[nodiscard]] int verify_policy(const Options& options);
[[nodiscard]] int unload_dispatch(const Options& options);
[[nodiscard]] int wait_for_service(const Options& options);

}  // namespace sockbroker::ctl
