// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <exception>
#include <system_error>
#include <utility>

#include "broker/base/thrown.h"

namespace sockbroker {

Result<std::unique_ptr<Worker>> Worker::start(sd_event* event) {
        std::unique_ptr<Worker> worker(new Worker);
        worker->event_fd_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!worker->event_fd_) {
                return fail_errno("cannot make an event descriptor");
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, worker->event_fd_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        return guarded([&] { static_cast<Worker*>(self)->finished(); });
                },
                worker.get());
        if (r < 0) {
                return fail(r, "cannot watch an event descriptor");
        }
        worker->source_.reset(source);
        try {
                worker->thread_ = std::thread([self = worker.get()] { self->work(); });
        } catch (const std::system_error& error) {
                return fail(error.code().value(), "cannot start a thread for what takes long; raise TasksMax=");
        }
        return worker;
}

Worker::~Worker() {
        {
                const std::scoped_lock lock(mutex_);
                stopping_ = true;
        }
        wake_.notify_one();
        if (thread_.joinable()) {
                thread_.join();
        }
}

void Worker::run(Job job, Done done) {
        done_ = std::move(done);
        {
                const std::scoped_lock lock(mutex_);
                job_ = std::move(job);
        }
        wake_.notify_one();
}

void Worker::work() {
        std::unique_lock lock(mutex_);
        while (true) {
                wake_.wait(lock, [this] { return stopping_ || job_; });
                if (stopping_) {
                        return;
                }
                Job job = std::exchange(job_, nullptr);
                lock.unlock();
                std::string failure;
                try {
                        job();
                } catch (const std::exception& error) {  // memory, in the first place: then not even for its text
                        (void)guarded([&] { failure = text_of(error); });
                        failure = failure.empty() ? "out of memory" : std::move(failure);
                }
                job = nullptr;
                lock.lock();
                failure_ = std::move(failure);
                const std::uint64_t one = 1;
                (void)!write(event_fd_.get(), &one, sizeof one);  // cannot be full
        }
}

void Worker::finished() {
        std::uint64_t count = 0;
        if (read(event_fd_.get(), &count, sizeof count) != sizeof count) {
                return;
        }
        std::string failure;
        {
                const std::scoped_lock lock(mutex_);
                failure = std::exchange(failure_, {});
        }
        if (const Done done = std::exchange(done_, nullptr)) {
                done(failure);
        }
}

}  // namespace sockbroker
