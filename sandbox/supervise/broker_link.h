// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The supervisor's words with the broker. A connection for each request: they are rare, and so are the places for
// connections of one user. A match is remembered for a tenth of a second, so that a program which binds in a loop is
// not the broker's matter. A broker that hangs is waited for 5 s, and then left alone for one: a call waits behind all
// those before it, also one that is no broker's matter.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/client/client.h"
#include "broker/client/match.h"
#include "broker/client/register.h"

namespace sockbroker::supervise {

inline constexpr std::string_view kTooFewDescriptors = "too-few-descriptors";  // in this process

struct Reply {
        std::string result;  // "ok", a code of docs/protocol.md, "unreachable" or kTooFewDescriptors
        std::string message;
        std::vector<std::string> warnings;

        [[nodiscard]] bool ok() const { return result == "ok"; }
};

struct Taken : MatchedService {
        Reply reply;
};

class BrokerLink {
public:
        // `services`: those of --service=; none: any that admits.
        BrokerLink(std::string runtime_dir, std::vector<std::string> services)
                : runtime_dir_(std::move(runtime_dir)), services_(std::move(services)) {}

        [[nodiscard]] Taken match(Protocol protocol, const Endpoint& at, pid_t pid);
        // The program's unit may bind the service's UDP ports on loopback from now on, where policy says so.
        [[nodiscard]] Reply prepare(const std::string& service, pid_t pid);
        [[nodiscard]] Reply hand_over(const std::string& service, pid_t pid, int fd, HowToRegister how);
        // What is held for the service: the program's from now on. See RetrieveOperation.
        [[nodiscard]] Reply retrieve(const std::string& service, pid_t pid, std::vector<OwnedFd>& fds);

private:
        struct Question {
                Protocol protocol;
                Endpoint at;
                pid_t pid;  // a child that has ended is refused, and its parent is not
                auto operator<=>(const Question&) const = default;
        };
        struct Remembered {
                Taken taken;
                std::chrono::steady_clock::time_point until;
        };
        // One request on a connection of its own; the second argument is the value of PID=, 0: none.
        using Speak = std::function<Result<ControlClient::Answer>(ControlClient&, pid_t)>;
        [[nodiscard]] Reply ask(pid_t pid, const Speak& speak);
        [[nodiscard]] Reply ask_now(pid_t pid, const Speak& speak);

        std::string runtime_dir_;
        std::vector<std::string> services_;
        std::map<Question, Remembered> remembered_;
        std::chrono::steady_clock::time_point leave_alone_until_;
        bool names_program_ = true;  // PID=
        bool proven_ = false;        // which was believed once
};

}  // namespace sockbroker::supervise
