// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/kept_sockets.h"

#include <fcntl.h>

#include <cerrno>

#include "broker/hands/wire.h"

namespace sockbroker::hands {

void KeptSockets::release(std::span<const std::uint64_t> cookies) {
        for (const std::uint64_t cookie : cookies) {
                sockets_.erase(cookie);
        }
}

int KeptSockets::find(std::uint64_t cookie) const {
        const auto found = sockets_.find(cookie);
        return found == sockets_.end() ? -1 : found->second.get();
}

int KeptSockets::queue(std::string text, OwnedFd socket) {
        if (news_.size() >= kMaxWaiting) {
                return ENOBUFS;
        }
        news_.push_back({std::move(text), std::move(socket)});
        return 0;
}

// FDPOLL=0: a listener that has shut down would be taken out, and a datagram socket with an error.
int KeptSockets::store(std::uint64_t cookie, std::string_view name) {
        const int socket = find(cookie);
        OwnedFd duplicate(socket < 0 ? -1 : fcntl(socket, F_DUPFD_CLOEXEC, 0));
        if (!duplicate) {
                return socket < 0 ? ENOENT : errno;
        }
        return queue("FDSTORE=1\nFDPOLL=0\nFDNAME=" + std::string(name), std::move(duplicate));
}

int KeptSockets::unstore(std::string_view name) {
        return queue("FDSTOREREMOVE=1\nFDNAME=" + std::string(name), OwnedFd());
}

void KeptSockets::tell(int manager) {
        while (!news_.empty()) {
                const News& next = news_.front();
                const int fd = next.socket.get();
                const int errnum = send_bytes(manager, std::as_bytes(std::span(next.text)),
                                              next.socket ? std::span(&fd, 1) : std::span<const int>());
                if (errnum == EAGAIN || errnum == ENOBUFS || errnum == ENOMEM || errnum == ETOOMANYREFS) {
                        return;  // later
                }
                news_.pop_front();
        }
}

}  // namespace sockbroker::hands
