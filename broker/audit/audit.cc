// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The writer thread and its bounded queue. sd_journal_sendv(3) blocks for good when journald hangs and its socket is
// full; here it blocks this thread and nobody else. State outlives the Audit for that case: a thread that hangs is
// left to the end of the process.
#include "broker/audit/audit.h"

#include <pthread.h>
#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

// Fields are exactly those of format.h, without CODE_FILE= and the like.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "broker/audit/format.h"
#include "broker/base/event.h"

namespace sockbroker {

namespace {

constexpr std::size_t kQueueEntries = 1024;
constexpr auto kPatience = std::chrono::seconds(2);
// After the last entry of a burst the thread looks again before it sleeps: meanwhile nobody has to wake it.
constexpr auto kLinger = std::chrono::milliseconds(1);

bool send_to_journal(const Entry& entry) {
        std::vector<std::string> fields = journal_fields(entry);
        std::vector<iovec> vectors;
        vectors.reserve(fields.size());
        for (std::string& field : fields) {
                vectors.push_back({field.data(), field.size()});
        }
        // 0 as well where no journald runs at all: then there is no journal to lose anything from.
        return ::sd_journal_sendv(vectors.data(), static_cast<int>(vectors.size())) >= 0;
}

void send_to_stderr(const Entry& entry) {
        const std::string line = stderr_line(entry);
        // One write, so that lines of other threads and processes do not run into it. A failure has nowhere to go.
        [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

struct Audit::State {
        const bool to_stderr = !is_journal_stream(STDERR_FILENO, std::getenv("JOURNAL_STREAM"));

        mutable std::mutex mutex;
        std::condition_variable work;
        std::condition_variable done;
        std::deque<Entry> queue;
        std::deque<Entry> in_hand;  // the thread's: taken from the queue, and not delivered yet
        bool asleep = false;
        std::uint64_t lost = 0;
        std::uint64_t reported = 0;  // how many of those a kLost entry has told of
        bool stopping = false;
        bool stopped = false;

        void run();
        void deliver_all(std::unique_lock<std::mutex>& lock);
        void deliver(const Entry& entry);
        void report_losses();
        [[nodiscard]] bool start(const std::shared_ptr<State>& self);
};

void Audit::State::deliver(const Entry& entry) {
        if (to_stderr) {
                send_to_stderr(entry);
        }
        const bool sent = send_to_journal(entry);
        const std::scoped_lock lock(mutex);
        lost += sent ? 0 : 1;
}

// Tells of losses only when the writer has caught up: in the midst of a flood it would add to it.
void Audit::State::report_losses() {
        Entry entry{.action = Action::kLost, .priority = 4};
        std::uint64_t total = 0;
        {
                const std::scoped_lock lock(mutex);
                if (lost == reported || queue.size() + in_hand.size() > kQueueEntries / 2) {
                        return;
                }
                total = lost;
                entry.message = std::to_string(total - reported) + " journal entries were lost";
        }
        if (send_to_journal(entry)) {
                if (to_stderr) {
                        send_to_stderr(entry);
                }
                const std::scoped_lock lock(mutex);
                reported = total;
        }
}

// What is in the queue now, with the lock released meanwhile.
void Audit::State::deliver_all(std::unique_lock<std::mutex>& lock) {
        for (in_hand.swap(queue); !in_hand.empty(); in_hand.pop_front()) {
                lock.unlock();
                // For want of memory an entry is lost, and the thread goes on.
                bool delivered = false;
                (void)guarded([&] {
                        deliver(in_hand.front());
                        delivered = true;
                        report_losses();
                });
                lock.lock();
                lost += delivered ? 0 : 1;
        }
}

void Audit::State::run() {
        ::pthread_setname_np(::pthread_self(), "audit");
        std::unique_lock lock(mutex);
        while (true) {
                asleep = true;
                work.wait(lock, [this] { return stopping || !queue.empty(); });
                asleep = false;
                while (!queue.empty()) {
                        deliver_all(lock);
                        if (queue.empty() && !stopping) {
                                work.wait_for(lock, kLinger, [this] { return stopping; });
                        }
                }
                if (stopping) {
                        break;
                }
        }
        stopped = true;
        done.notify_all();
}

bool Audit::State::start(const std::shared_ptr<State>& self) {
        // The thread inherits the mask: no signal meant for the event loop may end up here.
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        bool started = true;
        try {
                std::thread([self] { self->run(); }).detach();
        } catch (const std::system_error&) {
                started = false;
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return started;
}

Audit::Audit() : state_(std::make_shared<State>()) {
        // Without a thread (TasksMax=) the broker still works; every entry then counts as lost.
        state_->stopped = !state_->start(state_);
}

Audit::~Audit() {
        std::unique_lock lock(state_->mutex);
        state_->stopping = true;
        state_->work.notify_all();
        state_->done.wait_for(lock, kPatience, [this] { return state_->stopped; });
}

void Audit::write(Entry entry) noexcept {
        if (tap_) {
                (void)guarded([&] { tap_(entry); });
        }
        const std::scoped_lock lock(state_->mutex);
        bool queued = false;
        if (!state_->stopped && state_->queue.size() + state_->in_hand.size() < kQueueEntries) {
                (void)guarded([&] {
                        state_->queue.push_back(std::move(entry));
                        queued = true;
                });
        }
        state_->lost += queued ? 0 : 1;
        if (state_->asleep) {
                state_->work.notify_one();
        }
}

std::uint64_t Audit::lost() const {
        const std::scoped_lock lock(state_->mutex);
        return state_->lost;
}

}  // namespace sockbroker
