// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One connection to the control socket. The broker is trusted to speak the protocol but not to be alive: every wait
// ends, and what is not the protocol is an error that says so.
#include "broker/client/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/protocol/message.h"
#include "broker/protocol/request.h"

namespace sockbroker {
namespace {

constexpr std::size_t kMaxRecord = std::size_t{64} * 1024;

using Clock = std::chrono::steady_clock;
constexpr auto kNever = Clock::time_point::max();

std::string does_not_answer(const std::string& path) {
        return fmt::format("the broker at {} does not answer; see systemctl status sockbrokerd", path);
}

// Waits for `events`; a hang-up counts as ready, the next call on the socket tells.
Result<void> wait_for(int fd, short events, Clock::time_point deadline, const std::string& path, int stop = -1) {
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
                        return fail(ETIMEDOUT, does_not_answer(path));
                }
                if (ready < 0 && errno != EINTR) {
                        return fail_errno(fmt::format("cannot wait for {}", path));
                }
        }
}

// The values of all KEY= lines in a record.
std::vector<std::string> fields(std::string_view record, std::string_view key) {
        std::vector<std::string> values;
        while (!record.empty()) {
                const auto end = record.find('\n');
                const auto line = record.substr(0, end);
                if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == '=') {
                        values.emplace_back(line.substr(key.size() + 1));
                }
                record.remove_prefix(end == std::string_view::npos ? record.size() : end + 1);
        }
        return values;
}

// The value of the first.
std::optional<std::string> field(std::string_view record, std::string_view key) {
        auto values = fields(record, key);
        return values.empty() ? std::nullopt : std::optional(std::move(values.front()));
}

void take_descriptors(msghdr& header, std::vector<OwnedFd>& received) {
        for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
                if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
                        continue;
                }
                for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
                        int fd = -1;
                        std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
                        received.emplace_back(fd);
                }
        }
}

Result<ControlClient::Answer> parse_answer(std::string_view record, const std::string& path) {
        const auto result = field(record, "RESULT");
        const auto number = field(record, "ERRNO");
        const auto errnum = number ? parse_number(*number, 4095) : std::nullopt;
        const auto message = field(record, "MESSAGE");
        if (!result || result->empty() || !errnum || !message) {
                return fail(EPROTO,
                            fmt::format("{} answered with a RESULT= record that lacks RESULT=, ERRNO= or MESSAGE=; "
                                        "are tool and broker of one version?",
                                        path));
        }
        return ControlClient::Answer{*result, static_cast<int>(*errnum), *message, fields(record, "WARNING")};
}

}  // namespace

Result<ControlClient> ControlClient::connect(const std::string& runtime_dir, std::chrono::milliseconds patience) {
        const std::string path = runtime_dir + "/control";
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
                return fail(ENAMETOOLONG,
                            fmt::format("cannot connect to {}: the path of a UNIX socket has at most {} bytes, "
                                        "use a shorter runtime directory",
                                        path, sizeof address.sun_path - 1));
        }
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        if (!fd) {
                return fail_errno("cannot make a UNIX socket");
        }
        // A broker that hangs lets its backlog run full; connect(2) then waits for as long as sends may.
        const auto span = std::max(patience, std::chrono::milliseconds(1)).count();  // 0 would be for ever
        const timeval limit{.tv_sec = span / 1000, .tv_usec = span % 1000 * 1000};
        if (setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0) {
                return fail_errno("cannot bound the time of a connection");
        }
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
                if (errno == EAGAIN) {
                        return fail(ETIMEDOUT, does_not_answer(path));
                }
                return fail_errno(fmt::format("cannot connect to {} (is sockbrokerd running?)", path));
        }
        return ControlClient(std::move(fd), path);
}

Result<ControlClient::Answer> ControlClient::call(std::string_view request, const std::vector<int>& fds,
                                                  const std::function<void(std::string_view line)>& on_line,
                                                  std::vector<OwnedFd>* received) {
        if (fds.size() > kMaxMessageFds) {
                return fail(
                        fmt::format("{} sockets are too many for one message, which carries {} and is taken whole or "
                                    "not at all: register them in several messages (several .socket units), for a "
                                    "service with Handover=share",
                                    fds.size(), kMaxMessageFds));
        }
        auto deadline = Clock::now() + timeout_;
        for (auto sent = send_record(fd_.get(), request, fds); !sent; sent = send_record(fd_.get(), request, fds)) {
                if (sent.error().errnum != EAGAIN) {
                        return fail(sent.error().errnum, fmt::format("cannot send the request to {}", path_));
                }
                if (auto ready = wait_for(fd_.get(), POLLOUT, deadline, path_); !ready) {
                        return std::unexpected(ready.error());
                }
        }

        std::string record(kMaxRecord, '\0');
        for (bool first = true;; first = false) {
                deadline = first || stop_ < 0 ? Clock::now() + timeout_ : kNever;
                if (auto ready = wait_for(fd_.get(), POLLIN, deadline, path_, stop_); !ready) {
                        return std::unexpected(ready.error());
                }
                // Without a control buffer the kernel closes descriptors that nobody asked for.
                iovec vector = {.iov_base = record.data(), .iov_len = record.size()};
                msghdr header{.msg_iov = &vector, .msg_iovlen = 1};
                alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))];
                if (received != nullptr) {
                        header.msg_control = control;
                        header.msg_controllen = sizeof control;
                }
                const ssize_t length = recvmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
                        continue;
                }
                if (length < 0) {
                        return fail_errno(fmt::format("cannot read the answer of {}", path_));
                }
                if (received != nullptr) {
                        take_descriptors(header, *received);
                        if ((header.msg_flags & MSG_CTRUNC) != 0) {
                                return fail(
                                        EMFILE,
                                        fmt::format("not all descriptors of the answer of {} could be taken", path_));
                        }
                }
                if (length == 0) {
                        return fail(ECONNRESET,
                                    fmt::format("the broker at {} closed the connection before its answer was "
                                                "complete",
                                                path_));
                }
                if ((header.msg_flags & MSG_TRUNC) != 0) {
                        return fail(EPROTO,
                                    fmt::format("{} answered with a record of more than {} bytes", path_, kMaxRecord));
                }
                std::string_view text(record.data(), static_cast<std::size_t>(length));
                if (text.starts_with("RESULT=")) {
                        return parse_answer(text, path_);
                }
                if (!text.ends_with('\n')) {
                        return fail(EPROTO, fmt::format("{} answered with a record that ends inside a line", path_));
                }
                for (; !text.empty(); text.remove_prefix(text.find('\n') + 1)) {
                        if (on_line) {
                                on_line(text.substr(0, text.find('\n')));
                        }
                }
        }
}

}  // namespace sockbroker
