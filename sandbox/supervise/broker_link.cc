// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/broker_link.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "broker/client/retrieve.h"
#include "broker/protocol/request.h"

namespace sockbroker::supervise {

namespace {

constexpr auto kPatience = std::chrono::seconds(5);
constexpr auto kLeftAlone = std::chrono::seconds(1);  // that answered nothing
constexpr auto kRemember = std::chrono::milliseconds(100);
constexpr std::size_t kMostRemembered = 1024;

bool depends_on_policy_alone(std::string_view result) {
        return result == "ok" || result == "not-permitted" || result == "unknown-service" || result == "ambiguous";
}

bool lives(const OwnedFd& pidfd) {
        pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
        return pidfd && ::poll(&ended, 1, 0) == 0;
}

Reply no_answer(const Error& error) {
        return {.result = std::string(error.errnum == EMFILE ? kTooFewDescriptors : "unreachable"),
                .message = error.text(),
                .warnings = {}};
}

}  // namespace

Reply BrokerLink::ask(pid_t pid, const Speak& speak) {
        const auto begun = std::chrono::steady_clock::now();
        if (begun < leave_alone_until_) {
                return {.result = "unreachable", .message = "the broker answered nothing a moment ago", .warnings = {}};
        }
        auto reply = ask_now(pid, speak);
        // Of one that is not there or restarts the next connection may be answered; one that hangs takes its time.
        const auto now = std::chrono::steady_clock::now();
        if (reply.result == "unreachable" && now - begun >= kPatience) {
                leave_alone_until_ = now + kLeftAlone;
        }
        return reply;
}

Reply BrokerLink::ask_now(pid_t pid, const Speak& speak) {
        auto client = ControlClient::connect(runtime_dir_);
        if (!client) {
                return no_answer(client.error());
        }
        client->set_timeout(kPatience);
        const OwnedFd program(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
        for (;;) {
                auto answer = speak(*client, names_program_ ? pid : 0);
                if (!answer) {
                        return no_answer(answer.error());
                }
                // In a pid namespace of its own the program has another number for the broker. The supervisor then
                // stands for it, as sockbroker-run without --supervise would.
                // A program that has ended is refused too, and says nothing of namespaces.
                proven_ = proven_ || (names_program_ && answer->result == "ok");
                if (names_program_ && !proven_ && answer->result == "not-permitted" && answer->cause == "PID" &&
                    lives(program)) {
                        names_program_ = false;
                        continue;
                }
                return {.result = answer->result, .message = answer->message, .warnings = answer->warnings};
        }
}

Taken BrokerLink::match(Protocol protocol, const Endpoint& at, pid_t pid) {
        const auto now = std::chrono::steady_clock::now();
        const Question question{protocol, at, pid};
        if (const auto known = remembered_.find(question); known != remembered_.end() && known->second.until > now) {
                return known->second.taken;
        }
        Taken taken;
        taken.reply = ask(pid, [&](ControlClient& client, pid_t named) {
                Request request{.verb = Verb::kMatch, .pid = named};
                request.bind = {.protocol = protocol, .at = at, .services = services_};
                return client.call(format_request(request), {},
                                   [&](std::string_view line) { read_taker(line, taken); });
        });
        if (taken.reply.ok() && taken.service.empty()) {
                taken.reply = {.result = "internal", .message = "the broker's answer names no service", .warnings = {}};
        }
        if (remembered_.size() >= kMostRemembered) {
                remembered_.clear();
        }
        if (depends_on_policy_alone(taken.reply.result)) {
                remembered_[question] = {.taken = taken, .until = now + kRemember};
        }
        return taken;
}

Reply BrokerLink::prepare(const std::string& service, pid_t pid) {
        return ask(pid, [&](ControlClient& client, pid_t named) {
                const Request request{.verb = Verb::kPrepare, .service = service, .pid = named};
                return client.call(format_request(request), {}, [](std::string_view) {});
        });
}

Reply BrokerLink::hand_over(const std::string& service, pid_t pid, int fd, HowToRegister how) {
        return ask(pid, [&](ControlClient& client, pid_t named) {
                how.pid = named;
                return register_sockets(client, service, {fd}, how);
        });
}

Reply BrokerLink::retrieve(const std::string& service, pid_t pid, std::vector<OwnedFd>& fds) {
        return ask(pid, [&](ControlClient& client, pid_t named) { return retrieve_all(client, service, fds, named); });
}

}  // namespace sockbroker::supervise
