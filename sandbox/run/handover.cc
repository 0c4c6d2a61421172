// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See handover.h.
#include "sandbox/run/handover.h"

#include <fmt/format.h>

#include <algorithm>

#include "broker/client/client.h"
#include "broker/client/retrieve.h"
#include "broker/protocol/request.h"

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
        return std::unexpected(Failure{kExitUnreachable, error.text()});
}

// The broker's message says what to do about it.
std::unexpected<Failure> refused(const std::string& service, const ControlClient::Answer& answer) {
        return std::unexpected(
                Failure{kExitRefused, fmt::format("{}: {}: {}", service, answer.result, answer.message)});
}

bool names_service(const std::string& name) {
        constexpr std::string_view kUnits[] = {".socket", ".service"};
        return valid_service_name(name) && name != "unknown" && name != "stored" &&
               std::ranges::none_of(kUnits, [&](std::string_view suffix) { return name.ends_with(suffix); });
}

}  // namespace

std::vector<std::pair<std::string, std::vector<std::size_t>>> hand_out(const std::vector<std::string>& names,
                                                                       const std::string& service) {
        std::vector<std::pair<std::string, std::vector<std::size_t>>> handouts;
        for (std::size_t i = 0; i < names.size(); ++i) {
                const std::string& name = service.empty() ? names[i] : service;
                if (service.empty() && !names_service(name)) {
                        continue;
                }
                auto at = std::ranges::find(handouts, name, &std::pair<std::string, std::vector<std::size_t>>::first);
                if (at == handouts.end()) {
                        at = handouts.insert(at, {name, {}});
                }
                at->second.push_back(i);
        }
        return handouts;
}

std::expected<std::vector<NamedFd>, Failure> retrieve(const Options& options) {
        auto client = connect(options);
        if (!client) {
                return std::unexpected(client.error());
        }
        std::vector<OwnedFd> fds;
        const auto answer = retrieve_all(*client, options.service, fds);
        if (!answer) {
                return no_answer(answer.error());
        }
        if (answer->result == "not-held") {
                return std::vector<NamedFd>{};
        }
        if (answer->result != "ok") {
                return refused(options.service, *answer);
        }
        std::vector<NamedFd> sockets;
        sockets.reserve(fds.size());
        for (OwnedFd& fd : fds) {
                sockets.push_back({std::move(fd), options.service, true});
        }
        return sockets;
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
        const auto handouts = hand_out(names, options.service);
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
                const auto answer = client->call(format_request({Verb::kStore, service}), fds, {});
                if (!answer) {
                        return no_answer(answer.error());
                }
                if (answer->result != "ok") {
                        return refused(service, *answer);
                }
                for (const std::size_t i : indices) {
                        fresh[i]->registered = true;
                        fresh[i]->name = service;
                }
        }
        return {};
}

}  // namespace sockbroker::launcher
