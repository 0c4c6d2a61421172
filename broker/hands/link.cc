// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

namespace sockbroker::hands {

Result<Link::Ends> Link::make() {
        int sockets[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
                return fail_errno("cannot make a socket pair for a hand");
        }
        OwnedFd ours(sockets[0]);
        OwnedFd theirs(sockets[1]);
        int pipes[2];
        if (pipe2(pipes, O_CLOEXEC) != 0) {
                return fail_errno("cannot make a pipe for a hand");
        }
        OwnedFd answers(pipes[0]);
        OwnedFd write(pipes[1]);
        if (shutdown(ours.get(), SHUT_RD) != 0 || fcntl(answers.get(), F_SETFL, O_NONBLOCK) != 0) {
                return fail_errno("cannot set the channel of a hand up");
        }
        return Ends{Link(std::move(ours), std::move(answers)), std::move(theirs), std::move(write)};
}

int Link::send(const Order& order, std::span<const std::uint64_t> cookies, std::string_view text,
               std::span<const int> fds) const {
        if (cookies.size() > kMaxMessageFds || text.size() > kMaxMessageBytes) {
                return EMSGSIZE;
        }
        std::array<std::byte, kMaxOrder> record;
        Order whole = order;
        whole.cookies = static_cast<std::uint16_t>(cookies.size());
        whole.text = static_cast<std::uint16_t>(text.size());
        std::size_t size = 0;
        const auto put = [&](const void* from, std::size_t bytes) {
                if (bytes != 0) {
                        std::memcpy(record.data() + size, from, bytes);
                        size += bytes;
                }
        };
        put(&whole, sizeof whole);
        put(cookies.data(), cookies.size_bytes());
        put(text.data(), text.size());
        return send_bytes(orders_.get(), std::span(record).first(size), fds);
}

bool Link::receive(const std::function<bool(ParsedAnswer&)>& each) {
        std::array<std::byte, kMaxAnswer> buffer;
        const ssize_t size = read(answers_.get(), buffer.data(), buffer.size());
        if (size <= 0) {
                return size < 0 && (errno == EAGAIN || errno == EINTR);
        }
        std::span<const std::byte> all(buffer.data(), static_cast<std::size_t>(size));
        if (!read_.empty()) {
                std::ranges::copy(all, std::back_inserter(read_));
                all = read_;
        }
        std::size_t used = 0;
        while (true) {
                Parsed parsed = parse_answer(all.subspan(used));
                if (parsed.wrong) {
                        return false;
                }
                if (!parsed.answer) {
                        break;
                }
                used += parsed.used;
                if (!each(*parsed.answer)) {
                        return false;
                }
        }
        read_ = std::vector<std::byte>(all.begin() + static_cast<std::ptrdiff_t>(used), all.end());
        return true;
}

}  // namespace sockbroker::hands
