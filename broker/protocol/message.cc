// SPDX-License-Identifier: LGPL-2.1-or-later
//
// recvmsg(2) and sendmsg(2) on the broker's sockets. Nothing here looks into the text. What the kernel hands out
// is owned before anything else can fail: a descriptor that is neither kept nor closed would let any peer drain the
// broker's table (CVE-2020-12049 was this).
#include "broker/protocol/message.h"

#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "broker/protocol/control_part.h"
#include "broker/protocol/request.h"
#include "broker/protocol/socket_options.h"

namespace sockbroker {
namespace {

// Room for a security label, which the socket unit may have switched on (PassSecurity=yes). One that is longer
// still truncates the message, which is then dropped like any other truncated one.
constexpr std::size_t kMaxLabel = 1024;

constexpr std::size_t kControlBytes = CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int)) +
                                      CMSG_SPACE(kMaxMessageFds * sizeof(int)) + CMSG_SPACE(sizeof(timeval)) +
                                      CMSG_SPACE(kMaxLabel);

void take_rights(const cmsghdr* header, Message& message) {
        const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; i++) {
                int fd = -1;
                std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
                message.fds.emplace_back(fd);  // capacity was reserved: cannot throw
        }
}

void take_control(msghdr& header, Message& message) {
        for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
                if (part->cmsg_level != SOL_SOCKET) {
                        continue;
                }
                switch (part->cmsg_type) {
                case SCM_RIGHTS:
                        take_rights(part, message);
                        break;
                case SCM_CREDENTIALS:
                        if (ucred credentials{}; read_part(part, credentials)) {
                                message.credentials = credentials;
                        }
                        break;
                case SCM_PIDFD:
                        take_pidfd(part, message);
                        break;
                case SCM_TIMESTAMP:
                        if (timeval sent{}; read_part(part, sent)) {
                                message.sent_usec = sent.tv_sec * std::int64_t{1'000'000} + sent.tv_usec;
                        }
                        break;
                default:
                        break;
                }
        }
}

}  // namespace

Result<void> prepare_receiver(int fd) {
        const int on = 1;
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
                return fail_errno("cannot ask for the credentials of senders (SO_PASSCRED)");
        }
        if (setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) < 0 && errno != ENOPROTOOPT) {
                return fail_errno("cannot ask for pidfds of senders (SO_PASSPIDFD)");
        }
        if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) < 0) {
                return fail_errno("cannot ask for the time of messages (SO_TIMESTAMP)");
        }
        return {};
}

Result<Message> receive(int fd) {
        char text[kMaxMessageBytes];
        alignas(cmsghdr) char control[kControlBytes];
        Message message;
        message.fds.reserve(kMaxMessageFds);

        iovec vector = {.iov_base = text, .iov_len = sizeof text};
        msghdr header{};
        ssize_t length = -1;
        do {
                header = {
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                length = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        } while (length < 0 && errno == EINTR);
        if (length < 0) {
                return fail_errno("cannot receive a message");
        }

        take_control(header, message);
        if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
                // The kernel has delivered some of the descriptors all the same. MSG_CTRUNC is also what running out of
                // descriptors looks like.
                message.truncated = true;
        }
        if (message.truncated) {
                message.dropped = std::exchange(message.fds, {});
                return message;
        }
        message.text.assign(text, static_cast<std::size_t>(length));
        return message;
}

Result<void> send_record(int fd, std::string_view text, const std::vector<int>& fds) {
        if (fds.size() > kMaxMessageFds) {
                return fail(EINVAL, fmt::format("cannot send {} descriptors in one message, at most {} fit", fds.size(),
                                                kMaxMessageFds));
        }
        if (text.empty()) {
                return fail(EINVAL, "cannot send an empty record, which would read as the end of the connection");
        }
        // sendmsg(2) only reads through the pointer.
        iovec vector = {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1};
        alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))] = {};
        if (!fds.empty()) {
                header.msg_control = control;
                header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
                cmsghdr* part = CMSG_FIRSTHDR(&header);
                part->cmsg_level = SOL_SOCKET;
                part->cmsg_type = SCM_RIGHTS;
                part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
                std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
        }
        ssize_t sent = -1;
        do {
                sent = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0) {
                return fail_errno(
                        fmt::format("cannot send a record of {} bytes and {} descriptors", text.size(), fds.size()));
        }
        return {};
}

}  // namespace sockbroker
