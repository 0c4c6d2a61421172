// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See handover.h.
#include "sandbox/run/handover.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "broker/base/printable.h"
#include "broker/client/client.h"
#include "broker/client/own_netns.h"
#include "broker/client/register.h"
#include "broker/client/retrieve.h"
#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"
#include "sandbox/run/run.h"

namespace sockbroker::launcher {

namespace {

std::expected<ControlClient, Failure> connect(const Options& options) {
        auto client = ControlClient::connect(options.runtime_dir);
        if (client) {
                return std::move(*client);
        }
        return std::unexpected(Failure{
                kExitUnreachable,
                fmt::format(
                        "{}: start sockbrokerd.socket; in a container bind-mount {} into it; or run the program with "
                        "--no-register, without the broker",
                        client.error().text(), options.runtime_dir)});
}

std::unexpected<Failure> no_answer(const Error& error) {
        const int status = error.errnum == EMFILE ? kExitFailed : kExitUnreachable;  // EMFILE is this process's own
        return std::unexpected(Failure{status, error.text()});
}

// As systemd tells in $JOURNAL_STREAM, systemd.exec(5): device and inode.
bool standard_error_is_the_journal() {
        const char* stream = std::getenv("JOURNAL_STREAM");
        struct stat status {};
        return stream != nullptr && fstat(STDERR_FILENO, &status) == 0 &&
               fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

// The broker's message says what to do about it.
std::unexpected<Failure> refused(const std::string& service, const ControlClient::Answer& answer) {
        const auto hint = answer.result == "foreign-netns" ? foreign_netns_hint() : "";
        return std::unexpected(Failure{kExitRefused, fmt::format("{}: {}: {}{}{}", service, answer.result,
                                                                 answer.message, hint.empty() ? "" : "; ", hint)});
}

// What systemd names a descriptor where nobody gave it a name; systemd.socket(5), sd_listen_fds(3).
bool named_by_systemd(const std::string& name) {
        return name == "connection" || name == "stored" || name.ends_with(".socket") || name.ends_with(".service");
}

// Empty: of none.
std::string service_of(const std::string& name, const Options& options) {
        const auto named = named_services(options);
        if (std::ranges::find(named, name) != named.end()) {
                return name;
        }
        if (!options.services.empty()) {
                return options.services.size() == 1 ? options.services.front() : "";
        }
        return valid_service_name(name) && name != "unknown" && !named_by_systemd(name) ? name : "";
}

}  // namespace

std::vector<std::pair<std::string, std::vector<std::size_t>>> hand_out(const std::vector<std::string>& names,
                                                                       const Options& options) {
        std::vector<std::pair<std::string, std::vector<std::size_t>>> handouts;
        for (std::size_t i = 0; i < names.size(); ++i) {
                const std::string service = service_of(names[i], options);
                if (service.empty()) {
                        continue;
                }
                auto at =
                        std::ranges::find(handouts, service, &std::pair<std::string, std::vector<std::size_t>>::first);
                if (at == handouts.end()) {
                        at = handouts.insert(at, {service, {}});
                }
                at->second.push_back(i);
        }
        return handouts;
}

std::string why_left_out(const std::string& name, const Options& options) {
        if (!service_of(name, options).empty()) {
                return "";
        }
        if (options.services.size() > 1) {
                return fmt::format(
                        "the socket passed as \"{}\" is not registered: it is named after none of the services given "
                        "by "
                        "--service=; set FileDescriptorName= in its .socket unit",
                        printable(name));
        }
        if (name == "connection") {
                return "a socket passed as \"connection\" is not registered: so systemd names each connection of a "
                       ".socket unit with Accept=yes, and only the listening socket can be; set Accept=no there, or, "
                       "if "
                       "it is meant so, --no-register here";
        }
        if (named_by_systemd(name)) {
                return fmt::format(
                        "the socket passed as \"{}\" is not registered: so systemd names one where nobody gave it a "
                        "name; "
                        "set FileDescriptorName=SERVICE in its .socket unit, or --service=SERVICE here",
                        printable(name));
        }
        return "";
}

std::expected<std::vector<NamedFd>, Failure> retrieve(const Options& options) {
        auto client = connect(options);
        if (!client) {
                return std::unexpected(client.error());
        }
        std::vector<NamedFd> sockets;
        for (const std::string& service : named_services(options)) {
                std::vector<OwnedFd> fds;
                const auto answer = retrieve_all(*client, service, fds);
                if (!answer) {
                        return no_answer(answer.error());
                }
                if (answer->result != "ok" && answer->result != "not-held") {
                        return refused(service, *answer);
                }
                for (OwnedFd& fd : fds) {
                        sockets.push_back({std::move(fd), service, true});
                }
        }
        return sockets;
}

bool prepare(const Options& options, const std::string& service) {
        auto client = ControlClient::connect(options.runtime_dir);
        if (!client) {
                return false;
        }
        const Request request{.verb = Verb::kPrepare, .service = service};
        const auto answer = client->call(format_request(request), {}, [](std::string_view) {});
        return answer && answer->result == "ok";
}

std::expected<void, Failure> hand_over(const Options& options, std::vector<NamedFd>& sockets) {
        std::vector<NamedFd*> fresh;
        std::vector<std::string> names;
        for (NamedFd& socket : sockets) {
                if (!socket.registered && is_ip_socket(socket.fd.get())) {
                        fresh.push_back(&socket);
                        names.push_back(socket.name);
                }
        }
        for (const std::string& name : names) {
                if (const auto why = why_left_out(name, options); !why.empty()) {
                        complain(why);
                }
        }
        const auto handouts = hand_out(names, options);
        if (handouts.empty()) {
                return {};
        }
        auto client = connect(options);
        if (!client) {
                return std::unexpected(client.error());
        }
        for (const auto& [service, indices] : handouts) {
                std::vector<int> fds;
                for (const std::size_t i : indices) {
                        fds.push_back(fresh[i]->fd.get());
                }
                const auto answer = register_sockets(*client, service, fds);
                if (!answer) {
                        return no_answer(answer.error());
                }
                if (answer->result != "ok") {
                        return refused(service, *answer);
                }
                if (standard_error_is_the_journal()) {  // so that `journalctl -u UNIT` has it, a refusal or not
                        complain(fmt::format("{}: {} socket{} registered", service, fds.size(),
                                             fds.size() == 1 ? "" : "s"));
                }
                for (const auto& warning : answer->warnings) {
                        complain(fmt::format("{}: warning: {}", service, printable(warning)));
                }
                for (const std::size_t i : indices) {
                        fresh[i]->registered = true;
                        fresh[i]->name = service;
                }
        }
        return {};
}

}  // namespace sockbroker::launcher
