// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/closer.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "broker/base/event.h"

namespace sockbroker {

namespace {

using Clock = std::chrono::steady_clock;

// When all threads are at work and none has taken anything for so long, they are stuck: another one takes over.
constexpr auto kStuck = std::chrono::milliseconds(20);

int number(int fd, int option) {
        int value = -1;
        socklen_t size = sizeof value;
        return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

bool lingers(int fd) {
        linger value{};
        socklen_t size = sizeof value;
        return getsockopt(fd, SOL_SOCKET, SO_LINGER, &value, &size) == 0 && value.l_onoff != 0;
}

// Its owner could set it again at once, but that takes a race for each thread.
void stop_lingering(int fd) {
        if (lingers(fd) && number(fd, SO_ACCEPTCONN) == 0) {
                const linger off{};
                (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
        }
}

// Nothing may be sent any more: then whether there is a record, an empty one included, is known for good. Each has the
// credentials of its sender with it, the end of the connection has none.
bool holds_records(int connection) {
        shutdown(connection, SHUT_RD);
        char byte = 0;
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
        iovec vector = {.iov_base = &byte, .iov_len = 1};
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        return recvmsg(connection, &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0 ||
               header.msg_controllen > 0;
}

}  // namespace

struct Closer::State {
        std::mutex mutex;
        std::condition_variable work;
        std::deque<std::vector<OwnedFd>> queue;
        Clock::time_point last_taken;
        std::size_t threads = 0;
        std::size_t busy = 0;
        bool stopping = false;

        void run();
        void start_thread(const std::shared_ptr<State>& self);
};

void Closer::State::run() {
        std::unique_lock lock(mutex);
        while (true) {
                work.wait(lock, [this] { return stopping || !queue.empty(); });
                if (stopping) {
                        return;
                }
                std::vector<OwnedFd> batch = std::move(queue.front());
                queue.pop_front();
                last_taken = Clock::now();
                busy++;
                lock.unlock();
                for (OwnedFd& fd : batch) {
                        stop_lingering(fd.get());
                        fd.reset();
                }
                lock.lock();
                busy--;
        }
}

void Closer::State::start_thread(const std::shared_ptr<State>& self) {
        // TasksMax=, or no memory: those that exist go on, and the next batch tries again.
        try {
                std::thread([self] { self->run(); }).detach();
        } catch (const std::exception&) {
                return;
        }
        threads++;
        last_taken = Clock::now();
}

Closer::Closer() : state_(std::make_shared<State>()) {}

Closer::~Closer() {
        const std::scoped_lock lock(state_->mutex);
        state_->stopping = true;
        for (auto& batch : state_->queue) {
                for (OwnedFd& fd : batch) {
                        (void)fd.release();
                }
        }
        state_->work.notify_all();
}

void Closer::close(std::vector<OwnedFd> received) noexcept {
        std::erase_if(received, [](const OwnedFd& fd) { return closes_at_once(fd.get()); });
        hand_over(std::move(received));
}

void Closer::close_unseen(OwnedFd fd) noexcept {
        (void)guarded([&] {
                std::vector<OwnedFd> batch;
                batch.push_back(std::move(fd));
                hand_over(std::move(batch));
        });
}

void Closer::close_connection(OwnedFd connection) noexcept {
        if (holds_records(connection.get())) {
                close_unseen(std::move(connection));
        }
}

void Closer::hand_over(std::vector<OwnedFd> batch) noexcept {
        if (batch.empty()) {
                return;
        }
        State& state = *state_;
        const std::scoped_lock lock(state.mutex);
        const bool stuck = state.busy == state.threads && Clock::now() - state.last_taken > kStuck;
        (void)guarded([&] { state.queue.push_back(std::move(batch)); });
        if (state.threads == 0 || (stuck && state.threads < kMaxThreads)) {
                state.start_thread(state_);
        }
        state.work.notify_one();
}

IncomingPtr to_be_closed(Message message, Closer& closer) {
        IncomingPtr incoming(new Incoming, [&closer](Incoming* last) {
                const std::unique_ptr<Incoming> owned(last);
                closer.close(std::move(owned->fds));
                closer.close(std::move(owned->dropped));
        });
        static_cast<Message&>(*incoming) = std::move(message);
        return incoming;
}

bool closes_at_once(int fd) {
        struct stat status {};
        if (fstat(fd, &status) != 0) {
                return false;
        }
        if (S_ISFIFO(status.st_mode)) {
                return true;
        }
        const int domain = S_ISSOCK(status.st_mode) ? number(fd, SO_DOMAIN) : -1;
        if ((domain != AF_INET && domain != AF_INET6) || lingers(fd)) {
                return false;
        }
        const int protocol = number(fd, SO_PROTOCOL);
        return protocol == IPPROTO_UDP || (protocol == IPPROTO_TCP && number(fd, SO_ACCEPTCONN) == 1);
}

}  // namespace sockbroker
