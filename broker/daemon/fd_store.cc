// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/fd_store.h"

#include <fcntl.h>
#include <systemd/sd-daemon.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "broker/base/event.h"
#include "broker/base/net.h"

namespace sockbroker {

namespace {

// Far more than sockets are registered while PID 1 is busy; a removal always has its place.
constexpr std::size_t kMaxWaiting = 8192;
constexpr auto kPatience = std::chrono::seconds(1);

}  // namespace

FdStore::FdStore() : exists_(std::getenv("NOTIFY_SOCKET") != nullptr) {
        if (exists_) {
                std::thread([state = state_] { run(*state); }).detach();
        }
}

FdStore::~FdStore() {
        std::unique_lock lock(state_->mutex);
        state_->stopping = true;
        state_->wake.notify_all();
        if (exists_) {
                state_->wake.wait_for(lock, kPatience, [this] { return state_->stopped; });
        }
}

std::size_t FdStore::capacity() {
        const char* const said = std::getenv("FDSTORE");
        const auto number = said == nullptr ? std::nullopt : parse_number(said, 1U << 20);
        return number ? static_cast<std::size_t>(*number) : kUsualCapacity;
}

void FdStore::run(State& state) {
        std::unique_lock lock(state.mutex);
        while (true) {
                state.wake.wait(lock, [&] { return state.stopping || !state.queue.empty(); });
                if (state.queue.empty()) {
                        break;
                }
                const Item item = std::move(state.queue.front());
                state.queue.pop_front();
                lock.unlock();
                // FDPOLL=0: a listener that has shut down would be taken out, and a datagram socket with an error.
                (void)guarded([&] {
                        const std::string text =
                                (item.fd ? "FDSTORE=1\nFDPOLL=0\nFDNAME=" : "FDSTOREREMOVE=1\nFDNAME=") + item.name;
                        const int fd = item.fd.get();
                        (void)sd_pid_notify_with_fds(0, 0, text.c_str(), &fd, item.fd ? 1 : 0);
                });
                lock.lock();
        }
        state.stopped = true;
        state.wake.notify_all();
}

bool FdStore::add(const std::string& name, int fd) {
        if (!exists_) {
                return true;
        }
        Item item{name, OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, 3))};
        const std::scoped_lock lock(state_->mutex);
        if (!item.fd || state_->queue.size() >= kMaxWaiting) {
                return false;
        }
        state_->queue.push_back(std::move(item));
        state_->wake.notify_all();
        return true;
}

void FdStore::remove(const std::string& name) {
        if (!exists_) {
                return;
        }
        const std::scoped_lock lock(state_->mutex);
        state_->queue.push_back({name, OwnedFd()});
        state_->wake.notify_all();
}

}  // namespace sockbroker
