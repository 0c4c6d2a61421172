// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/peek.h"

#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include <fmt/format.h>

#include "broker/protocol/control_part.h"
#include "broker/protocol/request.h"
#include "broker/protocol/socket_options.h"

namespace sockbroker {
namespace {

Result<void> set_option(int fd, int option, int value, const char* name) {
        if (setsockopt(fd, SOL_SOCKET, option, &value, sizeof value) < 0) {
                return fail_errno(fmt::format("cannot set {} of a socket of the broker to {}", name, value));
        }
        return {};
}

Result<ssize_t> receive_into(int fd, msghdr& header, int flags) {
        const msghdr before = header;
        ssize_t length = -1;
        do {
                header = before;
                length = recvmsg(fd, &header, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        } while (length < 0 && errno == EINTR);
        if (length < 0) {
                return fail_errno("cannot receive a message");
        }
        return length;
}

}  // namespace

Result<void> prepare_for_peeking(int fd) {
        auto done = set_option(fd, SO_PASSCRED, 1, "SO_PASSCRED");
        done = done ? set_option(fd, SO_TIMESTAMP, 1, "SO_TIMESTAMP") : done;
        done = done ? set_option(fd, SO_PASSSEC, 0, "SO_PASSSEC") : done;
        if (done) {
                done = set_option(fd, SO_PASSPIDFD, 0, "SO_PASSPIDFD");
                if (!done && done.error().errnum == ENOPROTOOPT) {
                        return {};  // before 6.5 there is none
                }
        }
        return done;
}

Result<Message> peek(int fd) {
        char text[kMaxMessageBytes];
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timeval)) + CMSG_SPACE(sizeof(ucred))];
        iovec vector = {.iov_base = text, .iov_len = sizeof text};
        msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        const auto length = receive_into(fd, header, MSG_PEEK);
        if (!length) {
                return std::unexpected(length.error());
        }
        Message message;
        for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
                if (ucred credentials{}; part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS &&
                                         read_part(part, credentials)) {
                        message.credentials = credentials;
                } else if (timeval sent{}; part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMP &&
                                           read_part(part, sent)) {
                        message.sent_usec = sent.tv_sec * std::int64_t{1'000'000} + sent.tv_usec;
                }
        }
        message.has_fds = (header.msg_flags & MSG_CTRUNC) != 0;
        message.truncated = (header.msg_flags & MSG_TRUNC) != 0;
        if (!message.truncated) {
                message.text.assign(text, static_cast<std::size_t>(*length));
        }
        return message;
}

Result<Message> peek_sent(int fd) {
        timespec now{};
        clock_gettime(CLOCK_REALTIME, &now);
        auto message = peek(fd);
        if (message && message->sent_usec >= now.tv_sec * std::int64_t{1'000'000} + now.tv_nsec / 1000) {
                message->sent_usec = 0;
        }
        return message;
}

Result<void> consume(int fd, Message& message) {
        const bool asked = set_option(fd, SO_PASSPIDFD, 1, "SO_PASSPIDFD").has_value();
        char text = 0;
        alignas(cmsghdr) char
                control[CMSG_SPACE(sizeof(timeval)) + CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))];
        iovec vector = {.iov_base = &text, .iov_len = sizeof text};
        msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        const auto length = receive_into(fd, header, 0);
        if (asked) {
                (void)set_option(fd, SO_PASSPIDFD, 0, "SO_PASSPIDFD");
        }
        if (!length) {
                return std::unexpected(length.error());
        }
        for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
                if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_PIDFD) {
                        take_pidfd(part, message);
                }
        }
        return {};
}

void pin_sender(int connection, Message& message) {
        ucred connected{};
        socklen_t size = sizeof connected;
        if (!message.credentials || getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &connected, &size) != 0 ||
            connected.pid != message.credentials->pid) {
                return;
        }
        int pidfd = -1;
        size = sizeof pidfd;
        if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) {
                message.pidfd.reset(pidfd);
        }
}

}  // namespace sockbroker
