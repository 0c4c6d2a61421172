// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs register and unregister. Sockets come as systemd passes them, sd_listen_fds(3); all of one service
// go in one request, which the broker takes whole or not at all.
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "broker/client/named_fds.h"
#include "broker/client/register.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"
#include "broker/socket/facts.h"

namespace sockbroker::ctl {

namespace {

Result<std::vector<NamedFd>> take_sockets() {
        // Before sd_listen_fds(3), which says nothing of why it finds none.
        const char* const addressee = std::getenv("LISTEN_PID");
        if (addressee != nullptr && addressee != std::to_string(::getpid())) {
                return fail(
                        fmt::format("the sockets were passed to process {} and this is {}: let systemd run "
                                    "sockbrokerctl itself, not a shell around it",
                                    addressee, ::getpid()));
        }
        auto passed = take_passed();
        if (passed && passed->empty()) {
                return fail(
                        "no sockets were passed: run this as ExecStartPost= of a .socket unit (systemd 256 and "
                        "newer, with PassFileDescriptorsToExec=yes), or as ExecStart= of a one-shot service with "
                        "Sockets=NAME.socket");
        }
        return passed;
}

// What is no TCP or UDP socket stays with the service alone: a .socket unit may well have a UNIX socket beside.
std::vector<PassedFd> brokerable(const std::vector<NamedFd>& passed) {
        std::vector<PassedFd> sockets;
        for (const NamedFd& socket : passed) {
                const auto facts = probe_socket(socket.fd.get());
                if (facts && facts->domain != AF_INET && facts->domain != AF_INET6) {
                        complain(fmt::format(
                                "{}, passed as \"{}\", is passed over: the broker takes TCP and UDP sockets",
                                kind_of(*facts), socket.name));
                } else {
                        sockets.push_back({.fd = socket.fd.get(), .name = socket.name});
                }
        }
        return sockets;
}

int report(const Options& options, Output& output, JsonArray& array, const Handout& handout,
           const ControlClient::Answer& answer) {
        if (options.json != JsonMode::kOff) {
                array.add(answer_row(handout.service, answer));
        }
        if (answer.result == "ok") {
                report_warnings(answer, handout.service);
                if (options.json == JsonMode::kOff && !options.quiet) {
                        output.write(fmt::format("{}: {} registered\n", handout.service,
                                                 count(handout.fds.size(), "socket")));
                }
                return kExitOk;
        }
        const int status = report_refusal(answer, handout.service);
        if (answer.result == "unknown-service" || answer.result == "not-listening") {
                for (const std::string& name : handout.names) {
                        if (const auto hint = name_hint(name); !hint.empty()) {
                                complain(hint);
                        }
                }
        }
        return status;
}

}  // namespace

int register_sockets(const Options& options) {
        if (options.pid != 0) {
                return register_of_process(options);
        }
        if (options.arguments.size() > 1) {
                complain("too many arguments, write: sockbrokerctl register [SERVICE]");
                return kExitUsage;
        }
        const Result<std::vector<NamedFd>> passed = take_sockets();
        if (!passed) {
                complain(passed.error().text());
                return kExitFailed;
        }
        const std::string service = options.arguments.empty() ? "" : options.arguments.front();
        const std::vector<PassedFd> sockets = brokerable(*passed);
        if (sockets.empty()) {
                complain("nothing is left to register: none of what was passed is a TCP or UDP socket");
                return kExitFailed;
        }
        const Result<std::vector<Handout>> handouts = hand_out(sockets, service);
        if (!handouts) {
                complain(handouts.error().text());
                return kExitUsage;
        }
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return client.error();
        }
        Output output(options);
        JsonArray array(output, options.json);
        int status = kExitOk;
        for (const Handout& handout : *handouts) {
                const auto answer = sockbroker::register_sockets(*client, handout.service, handout.fds);
                if (!answer) {
                        // No answer: whether the broker took them is not known, and the connection is of no use.
                        return output.finish(report_no_answer(answer.error()));
                }
                status = std::max(status, report(options, output, array, handout, *answer));
        }
        if (options.json != JsonMode::kOff) {
                array.close();
        }
        return output.finish(status);
}

int unregister_service(const Options& options) {
        const std::string& service = options.arguments.front();
        if (const auto checked = hand_out({}, service); !checked || service.empty()) {
                complain(checked ? "the name of the service is empty" : checked.error().text());
                return kExitUsage;
        }
        const auto answer = ask(options, fmt::format("VERB=unregister\nFDNAME={}\n", service), [](std::string_view) {});
        if (!answer) {
                return answer.error();
        }
        return show_answer(options, service, *answer, "");
}

}  // namespace sockbroker::ctl
