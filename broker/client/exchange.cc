// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See exchange.h.
#include "broker/client/exchange.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/protocol/message.h"
#include "broker/protocol/request.h"

namespace sockbroker {
namespace {

constexpr std::size_t kMaxRecord = std::size_t{64} * 1024;

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

Result<ControlAnswer> parse_answer(std::string_view record, const std::string& path) {
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
        return ControlAnswer{.result = *result,
                             .errnum = static_cast<int>(*errnum),
                             .message = *message,
                             .warnings = fields(record, "WARNING"),
                             .cause = field(record, "CAUSE").value_or("")};
}

}  // namespace

short Exchange::events() const {
        return record_.empty() ? POLLOUT : POLLIN;
}

Result<Exchange::Step> Exchange::advance(const OnLine& on_line, std::vector<OwnedFd>* received) {
        return record_.empty() ? send() : receive(on_line, received);
}

Result<Exchange::Step> Exchange::send() {
        if (fds_.size() > kMaxMessageFds) {
                return fail(
                        fmt::format("{} sockets are too many for one message, which carries {} and is taken whole or "
                                    "not at all: register them in several messages (several .socket units), for a "
                                    "service with Handover=share",
                                    fds_.size(), kMaxMessageFds));
        }
        if (const auto sent = send_record(connection_, request_, fds_); !sent) {
                if (sent.error().errnum == EAGAIN) {
                        return Step{};
                }
                if (sent.error().errnum != EPIPE && sent.error().errnum != ECONNRESET) {
                        return fail(sent.error().errnum, fmt::format("cannot send the request to {}", path_));
                }
                // The broker has closed the connection. Why, it may have said before: that can still be read.
        }
        record_.resize(kMaxRecord);
        return Step{.moved = true, .answer = {}};
}

Result<Exchange::Step> Exchange::receive(const OnLine& on_line, std::vector<OwnedFd>* received) {
        // Without a control buffer the kernel closes descriptors that nobody asked for.
        iovec vector = {.iov_base = record_.data(), .iov_len = record_.size()};
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1};
        alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))];
        if (received != nullptr) {
                received->reserve(received->size() + kMaxMessageFds);  // what arrives is owned, whatever fails
                header.msg_control = control;
                header.msg_controllen = sizeof control;
        }
        ssize_t length = recvmsg(connection_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (length < 0 && errno == ECONNRESET) {
                // Said once, ahead of the records that came before it.
                length = recvmsg(connection_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        }
        if (length < 0 && errno == EINTR) {
                return Step{.moved = true, .answer = {}};
        }
        if (length < 0 && errno == EAGAIN) {
                return Step{};
        }
        if (length < 0) {
                return fail_errno(fmt::format("cannot read the answer of {}", path_));
        }
        if (received != nullptr) {
                take_descriptors(header, *received);
                if ((header.msg_flags & MSG_CTRUNC) != 0) {
                        return fail(EMFILE,
                                    fmt::format("not all descriptors of the answer of {} could be taken", path_));
                }
        }
        if (length == 0) {
                return fail(
                        ECONNRESET,
                        fmt::format("the broker at {} closed the connection before its answer was complete", path_));
        }
        if ((header.msg_flags & MSG_TRUNC) != 0) {
                return fail(EPROTO, fmt::format("{} answered with a record of more than {} bytes", path_, kMaxRecord));
        }
        std::string_view text(record_.data(), static_cast<std::size_t>(length));
        if (text.starts_with("RESULT=")) {
                auto answer = parse_answer(text, path_);
                if (!answer) {
                        return std::unexpected(answer.error());
                }
                return Step{.moved = true, .answer = std::move(*answer)};
        }
        if (!text.ends_with('\n')) {
                return fail(EPROTO, fmt::format("{} answered with a record that ends inside a line", path_));
        }
        for (; !text.empty(); text.remove_prefix(text.find('\n') + 1)) {
                if (on_line) {
                        on_line(text.substr(0, text.find('\n')));
                }
        }
        return Step{.moved = true, .answer = {}};
}

}  // namespace sockbroker
