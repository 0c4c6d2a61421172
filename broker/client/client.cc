// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections to the control socket, and exchanges that wait. The broker is trusted to speak the protocol but not to be
// alive: every wait ends, and what is not the protocol is an error that says so.
#include "broker/client/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace sockbroker {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kNever = Clock::time_point::max();

// Waits for `events`; a hang-up counts as ready, the next call on the socket tells.
Result<void> wait_for(int fd, short events, Clock::time_point deadline, const std::string& runtime_dir, int stop) {
        for (;;) {
                const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
                pollfd entries[] = {{.fd = fd, .events = events, .revents = 0},
                                    {.fd = stop, .events = POLLIN, .revents = 0}};  // none where it is negative
                const int ready = left <= 0 ? 0 : poll(entries, 2, static_cast<int>(std::min<long>(left, 1 << 30)));
                if (ready > 0 && entries[1].revents != 0) {
                        return fail(ECANCELED, "it was stopped");
                }
                if (ready > 0) {
                        return {};
                }
                if (ready == 0 && deadline != kNever) {
                        return no_answer_in_time(runtime_dir);
                }
                if (ready < 0 && errno != EINTR) {
                        return fail_errno(fmt::format("cannot wait for {}", control_path(runtime_dir)));
                }
        }
}

}  // namespace

std::string control_path(const std::string& runtime_dir) {
        return runtime_dir + "/control";
}

std::unexpected<Error> no_answer_in_time(const std::string& runtime_dir) {
        return fail(ETIMEDOUT, fmt::format("the broker at {} does not answer; see systemctl status sockbrokerd",
                                           control_path(runtime_dir)));
}

Result<OwnedFd> open_control(const std::string& runtime_dir, std::chrono::milliseconds patience) {
        const std::string path = control_path(runtime_dir);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
                return fail(ENAMETOOLONG,
                            fmt::format("cannot connect to {}: the path of a UNIX socket has at most {} bytes, "
                                        "use a shorter runtime directory",
                                        path, sizeof address.sun_path - 1));
        }
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        const bool waits = patience > std::chrono::milliseconds(0);
        OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK), 0));
        if (!fd) {
                return fail_errno("cannot make a UNIX socket");
        }
        // A broker that hangs lets its backlog run full; connect(2) then waits for as long as sends may.
        const auto span = patience.count();
        const timeval limit{.tv_sec = span / 1000, .tv_usec = span % 1000 * 1000};
        if (waits && setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0) {
                return fail_errno("cannot bound the time of a connection");
        }
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
                return fail_errno(fmt::format("cannot connect to {} (is sockbrokerd running?)", path));
        }
        return fd;
}

Result<ControlClient> ControlClient::connect(const std::string& runtime_dir, std::chrono::milliseconds patience) {
        auto fd = open_control(runtime_dir, std::max(patience, std::chrono::milliseconds(1)));
        if (!fd && fd.error().errnum == EAGAIN) {
                return no_answer_in_time(runtime_dir);
        }
        if (!fd) {
                return std::unexpected(fd.error());
        }
        return ControlClient(std::move(*fd), runtime_dir);
}

Result<ControlClient::Answer> ControlClient::call(std::string_view request, const std::vector<int>& fds,
                                                  const std::function<void(std::string_view line)>& on_line,
                                                  std::vector<OwnedFd>* received) {
        Exchange exchange(fd_.get(), control_path(runtime_dir_), std::string(request), fds);
        auto deadline = Clock::now() + timeout_;
        for (unsigned moves = 0;;) {
                if (auto ready = wait_for(fd_.get(), exchange.events(), deadline, runtime_dir_, stop_); !ready) {
                        return std::unexpected(ready.error());
                }
                auto step = exchange.advance(on_line, received);
                if (!step) {
                        return std::unexpected(step.error());
                }
                if (auto answer = std::move(step->answer)) {
                        return std::move(*answer);
                }
                if (step->moved) {  // the first is the request
                        deadline = stop_ >= 0 && ++moves > 1 ? kNever : Clock::now() + timeout_;
                }
        }
}

}  // namespace sockbroker
