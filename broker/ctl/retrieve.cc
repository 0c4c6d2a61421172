// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb retrieve: the sockets of a service that are held for its next instance, and the program that gets them as
// systemd would pass them. None held is no error: that is how every first instance begins.
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>

#include "broker/base/execute.h"
#include "broker/base/printable.h"
#include "broker/client/named_fds.h"
#include "broker/client/retrieve.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/verbs.h"
#include "broker/protocol/service_name.h"

namespace sockbroker::ctl {

namespace {

int become(const std::vector<std::string>& command) {
        const int errnum = replace_process(command);
        complain(fmt::format("cannot run {}: {}", printable(command[0]), std::strerror(errnum)));
        return kExitFailed;
}

}  // namespace

int retrieve_sockets(const Options& options) {
        const std::string& service = options.arguments.front();
        if (!valid_service_name(service)) {
                complain(hand_out({}, service).error().text());
                return kExitUsage;
        }
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return client.error();
        }
        std::vector<OwnedFd> fds;
        const auto answer = retrieve_all(*client, service, fds);
        if (!answer) {
                return report_no_answer(answer.error());
        }
        if (answer->result != "ok" && answer->result != "not-held") {
                return report_refusal(*answer, service);
        }
        std::vector<NamedFd> sockets;
        sockets.reserve(fds.size());
        for (OwnedFd& fd : fds) {
                sockets.push_back({.fd = std::move(fd), .name = service});
        }
        if (const auto passed = pass_on(sockets); !passed) {
                complain(passed.error().text());
                return kExitFailed;
        }
        return become({options.arguments.begin() + 1, options.arguments.end()});
}

}  // namespace sockbroker::ctl
