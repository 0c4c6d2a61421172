// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/kept_sockets.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <utility>

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

int KeptSockets::queue(News news) {
        if (news_.size() >= kMaxWaiting) {
                return ENOBUFS;
        }
        news_.push_back(std::move(news));
        return 0;
}

// FDPOLL=0: a listener that has shut down would be taken out, and a datagram socket with an error.
int KeptSockets::store(std::uint64_t cookie, std::string_view name) {
        const int socket = find(cookie);
        OwnedFd duplicate(socket < 0 ? -1 : fcntl(socket, F_DUPFD_CLOEXEC, 0));
        if (!duplicate) {
                return socket < 0 ? ENOENT : errno;
        }
        return queue({.text = "FDSTORE=1\nFDPOLL=0\nFDNAME=" + std::string(name),
                      .socket = std::move(duplicate),
                      .stores = true});
}

int KeptSockets::unstore(std::uint32_t job, std::uint64_t cookie, std::string_view name) {
        News news{.text = "FDSTOREREMOVE=1\nFDNAME=" + std::string(name), .job = job};
        if (const auto found = sockets_.find(cookie); found != sockets_.end()) {
                news.socket = std::move(found->second);
                sockets_.erase(found);
        }
        news_.push_back(std::move(news));  // there are no more of these than of what was stored
        return 0;
}

std::vector<KeptSockets::Forgotten> KeptSockets::tell(int manager) {
        const auto later = [](int errnum) {
                return errnum == EAGAIN || errnum == ENOBUFS || errnum == ENOMEM || errnum == ETOOMANYREFS;
        };
        while (!news_.empty()) {
                News& next = news_.front();
                const int fd = next.socket.get();
                const int errnum = send_bytes(manager, std::as_bytes(std::span(next.text)),
                                              next.stores ? std::span(&fd, 1) : std::span<const int>());
                if (later(errnum)) {
                        return {};
                }
                if (!next.stores) {
                        told_.push_back({next.job, std::move(next.socket)});
                }
                news_.pop_front();
        }
        if (told_.empty() || barrier_) {
                return {};
        }
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) {
                return take_told(told_.size());
        }
        OwnedFd read(ends[0]);
        const OwnedFd write(ends[1]);
        constexpr std::string_view kBarrier = "BARRIER=1";
        const int errnum = send_bytes(manager, std::as_bytes(std::span(kBarrier)), std::span(&ends[1], 1));
        if (errnum == 0) {
                barrier_ = std::move(read);
                covered_ = told_.size();
                return {};
        }
        return later(errnum) ? std::vector<Forgotten>() : take_told(told_.size());
}

std::vector<KeptSockets::Forgotten> KeptSockets::confirmed() {
        barrier_.reset();
        return take_told(std::exchange(covered_, 0));
}

std::vector<KeptSockets::Forgotten> KeptSockets::take_told(std::size_t count) {
        const auto end = told_.begin() + static_cast<std::ptrdiff_t>(count);
        std::vector<Forgotten> taken(std::make_move_iterator(told_.begin()), std::make_move_iterator(end));
        told_.erase(told_.begin(), end);
        return taken;
}

}  // namespace sockbroker::hands
