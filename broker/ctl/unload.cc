// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb unload: the broker is asked to take dispatch away; where none runs, root takes away the pins itself. Local
// routes stay, for packets that are late, unless the broker is taken off the machine for good.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "broker/ctl/ask.h"
#include "broker/ctl/netns.h"
#include "broker/ctl/output.h"
#include "broker/ctl/running.h"
#include "broker/ctl/silent_files.h"
#include "broker/ctl/verbs.h"
#include "broker/dataplane/dataplane.h"
#include "broker/policy/files.h"
#include "broker/routes/withdraw.h"

namespace sockbroker::ctl {

namespace {

// Those of [Broker]; none where they do not answer, which must not keep dispatch from being taken away.
std::optional<RouteConfig> route_config(const Options& options) {
        const auto& dirs = options.config_dirs;
        const auto deadline = deadline_after(Deadline::clock::now(), patience_of(options));
        if (const auto silent = first_silent(dirs, {dirs.front() + "/sockbrokerd.conf"}, deadline)) {
                complain(silent->to_string());
                complain(
                        "RouteProtocol= and AnnounceTable= are not known, so routes are looked for by the usual "
                        "numbers");
                return std::nullopt;
        }
        return load_broker_config(dirs).config.routes;
}

// Whether no route of these kinds is left.
bool withdraw(const Options& options, bool announcements) {
        if (!announcements && !options.local_routes) {
                return true;
        }
        if (!options.netns.empty() && access(("/run/netns/" + options.netns).c_str(), F_OK) != 0 && errno == ENOENT) {
                return true;  // it was removed, and its routes with it
        }
        if (!options.netns.empty() && !enter_netns(options.netns)) {
                complain(fmt::format("cannot enter the network namespace {}, in which there may be routes",
                                     options.netns));
                return false;
        }
        const auto told = route_config(options);
        const auto config = told.value_or(RouteConfig{});
        const auto without = [&](routes::Kind kind) {
                return routes::withdraw(options.runtime_dir + "/routes",
                                        {.protocol = config.protocol, .announce_table = config.announce_table}, kind,
                                        kShortTimeout);
        };
        const auto announced = announcements ? without(routes::Kind::kAnnounce) : Result<void>();
        if (!announced) {
                complain(
                        fmt::format("prefixes may still be announced (ip route flush table {} proto {}, with ip -6 "
                                    "too): {}",
                                    config.announce_table, config.protocol, announced.error().text()));
        }
        const auto local = options.local_routes ? without(routes::Kind::kLocal) : Result<void>();
        if (!local) {
                complain(
                        fmt::format("prefixes may still be local (ip route flush table local proto {}, with ip -6 "
                                    "too): {}",
                                    config.protocol, local.error().text()));
        }
        return told && announced && local;
}

int unload_pins(const Options& options) {
        const bool withdrawn = withdraw(options, true);
        const std::string pins = options.bpffs + "/dispatch";
        // As after a boot without a broker. Said, since the directory may have been meant to be another.
        if (::access(pins.c_str(), F_OK) != 0 && errno == ENOENT) {
                if (!options.quiet) {
                        complain(fmt::format("nothing is pinned in {}, so nothing is dispatched by it", pins));
                }
                return withdrawn ? kExitOk : kExitFailed;
        }
        if (const Result<void> unloaded = Dataplane::unload(pins); !unloaded) {
                complain(unloaded.error().text());
                return kExitFailed;
        }
        return withdrawn ? kExitOk : kExitFailed;
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
        if (answer->result != "ok") {
                return report_refusal(*answer);
        }
        await_end_by_systemd(options, std::chrono::ceil<std::chrono::milliseconds>(kShortTimeout));
        // It warns of nothing else than prefixes that it could not withdraw.
        return withdraw(options, !answer->warnings.empty()) ? kExitOk : kExitFailed;
}

}  // namespace sockbroker::ctl
