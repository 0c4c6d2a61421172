// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/load.h"

#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include "broker/base/capabilities.h"
#include "broker/base/standard_streams.h"
#include "broker/daemon/diagnostics.h"
#include "broker/daemon/places.h"
#ifdef SOCKBROKER_TAKEOVER
#include "tests/sandbox/takeover.h"
#endif

namespace sockbroker {

namespace {

constexpr std::initializer_list<cap_value_t> kToLoad{CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN};

Capacity wanted_by(const BrokerConfig& config) {
        return {.bindings = config.limits.max_bindings,
                .services = config.limits.max_services,
                .sockets = config.max_sockets,
                .accounted = config.limits.max_accounted};
}

std::string describe_mistakes(const std::vector<Diagnostic>& found) {
        if (found.empty()) {
                return {};
        }
        return fmt::format(
                "{} in the settings of the broker, which started without these lines{}: mend them and restart it",
                count_errors(found.size()), first_error(found));
}

std::vector<std::string> notes_of(std::uint32_t earlier_layout, const std::string& not_grown) {
        std::vector<std::string> notes;
        if (!not_grown.empty()) {
                notes.push_back("the limits could not be raised, those of before stay: " + not_grown);
        }
        if (earlier_layout != 0) {
                notes.push_back(
                        fmt::format("sockets were taken along from maps of layout {} into those of layout {}; dispatch "
                                    "goes on by the rules of before until there are new ones",
                                    earlier_layout, Dataplane::layout_version()));
        }
        return notes;
}

bool has_room_for(const Capacity& capacity, const Capacity& wanted) {
        return capacity.bindings >= wanted.bindings && capacity.services >= wanted.services &&
               capacity.sockets >= wanted.sockets && capacity.accounted >= wanted.accounted;
}

void print(const char* level, const std::string& text) {
        print_to_stderr(fmt::format("{}sockbrokerd: {}\n", getenv("JOURNAL_STREAM") != nullptr ? level : "", text));
}

}  // namespace

Result<void> run_load(const DaemonOptions& options) {
        if (auto checked = check_netns(options.netns); !checked) {
                return checked;
        }
        const auto lock = open_pin_dir(options);
        if (!lock && lock.error().errnum == EWOULDBLOCK) {
                print(SD_INFO,
                      fmt::format("a broker serves by {}: nothing to load before its next start", options.pin_dir()));
                return {};
        }
        if (!lock) {
                return std::unexpected(lock.error());
        }
        if (auto kept = keep_capabilities(kToLoad); !kept) {
                return kept;
        }
#ifdef SOCKBROKER_TAKEOVER  // another executable, tests/sandbox
        if (getenv("SOCKBROKER_TAKEOVER_LOAD") != nullptr) {
                act_as_if_taken_over(options);
        }
#endif
        const auto config = load_broker_config(options.config_dirs);  // what is wrong in it the broker says
        const auto loaded = Dataplane::load(options.pin_dir(), wanted_by(config.config));
        if (!loaded) {
                return std::unexpected(loaded.error());
        }
        for (const auto& note : notes_of(loaded->earlier_layout, loaded->not_grown)) {
                print(SD_WARNING, note);
        }
        if (!loaded->no_filter.empty()) {
                print(SD_WARNING, loaded->no_filter);
        }
        return {};
}

Result<OpenedDataplane> open_dataplane(const DaemonOptions& options) {
        const bool loads = has_capability(kToLoad);
        if (auto kept = keep_capabilities(kToLoad); !kept) {
                return std::unexpected(kept.error());
        }
        const auto [config, diagnostics] = load_broker_config(options.config_dirs);
        const auto wanted = wanted_by(config);
        auto dataplane = loads ? Dataplane::open(options.pin_dir(), wanted) : Dataplane::adopt(options.pin_dir());
        if (!dataplane) {
                return std::unexpected(dataplane.error());
        }
        if (auto kept = keep_capabilities({}); !kept) {
                return std::unexpected(kept.error());
        }
        (*dataplane)->limit_sockets(config.max_sockets);
        std::optional<NotifyFilter> filter;
        if (auto found = NotifyFilter::open(options.pin_dir())) {
                filter = std::move(*found);
        }
        auto notes = notes_of((*dataplane)->earlier_layout(), (*dataplane)->not_grown());
        if (!loads && !has_room_for((*dataplane)->capacity(), wanted)) {
                notes.emplace_back(
                        "the limits of sockbrokerd.conf are above what was loaded, which stays; "
                        "journalctl -u sockbrokerd-load.service says why");
        }
        return OpenedDataplane{.config = config,
                               .mistakes = describe_mistakes(diagnostics),
                               .dataplane = std::move(*dataplane),
                               .filter = std::move(filter),
                               .notes = std::move(notes)};
}

}  // namespace sockbroker
