// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/names/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <csignal>
#include <ctime>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "broker/base/landlock.h"
#include "broker/names/nss.h"
#include "broker/names/question.h"
#include "sandbox/compile.h"
#include "sandbox/parse.h"

namespace sockbroker {

namespace {

constexpr std::string_view kProfile =
#include "broker/names/names_profile.inc"
        ;

// Processes that do not end although they were left behind: no more are made while there are so many.
constexpr int kMaxLeftBehind = 4;
constexpr timespec kBetweenStarts{.tv_sec = 0, .tv_nsec = 200'000'000};

Result<sandbox::Profile> built_in_profile() {
        auto parsed = sandbox::parse_profile(
                "names", {{"names.profile", std::string(kProfile)}},
                [](const std::string&) { return Result<sandbox::ProfileFile>(fail("nothing is included")); });
        return parsed.profile ? Result<sandbox::Profile>(std::move(*parsed.profile))
                              : fail(parsed.errors.front().to_string());
}

// NSS libraries may lie anywhere and read anything; nothing is written, made or removed. Without Landlock the filter
// holds.
bool confine_names() {
        (void)restrict_files({.read = {"/"}, .write = {}, .pin = {}});
        const auto profile = built_in_profile();
        const auto filter = profile ? sandbox::compile(*profile) : std::unexpected(profile.error());
        return filter && filter->install();
}

// The threads of one process. They are made as they are needed, up to as many as there are questions.
class Pool {
public:
        explicit Pool(int socket) : socket_(socket) {}

        void add(ToNames record) {
                const std::scoped_lock lock(mutex_);
                queue_.push_back(std::move(record));
                if (idle_ < queue_.size() && threads_ < kNamesThreads && start_thread()) {
                        threads_++;
                }
                wake_.notify_one();
        }

private:
        // TasksMax=: those that exist go on; without any the question gets no answer in time.
        bool start_thread() {
                try {
                        std::thread([this] { work(); }).detach();
                } catch (const std::system_error&) {
                        return false;
                }
                return true;
        }

        void work() {
                std::unique_lock lock(mutex_);
                while (true) {
                        idle_++;
                        wake_.wait(lock, [this] { return !queue_.empty(); });
                        idle_--;
                        const ToNames record = std::move(queue_.front());
                        queue_.pop_front();
                        lock.unlock();
                        const std::string answer =
                                encode({.number = record.number, .answer = ask_nss(record.question)});
                        (void)!send(socket_, answer.data(), answer.size(), MSG_NOSIGNAL);
                        lock.lock();
                }
        }

        int socket_;
        std::mutex mutex_;
        std::condition_variable wake_;
        std::deque<ToNames> queue_;
        std::size_t threads_ = 0;
        std::size_t idle_ = 0;
};

// Until it is to be replaced, which `replace` tells the other process: a byte, or the end of this one.
[[noreturn]] void answer(int socket, int replace, pid_t parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != parent) {
                _exit(EXIT_FAILURE);
        }
        const std::string here = encode({.here = true});
        (void)!send(socket, here.data(), here.size(), MSG_NOSIGNAL);
        auto& pool = *new Pool(socket);  // its threads never end
        while (true) {
                std::array<char, kMaxNamesRecord> record{};
                const ssize_t size = recv(socket, record.data(), record.size(), 0);
                if (size < 0 && errno == EINTR) {
                        continue;
                }
                auto order = decode_to_names({record.data(), static_cast<std::size_t>(size < 0 ? 0 : size)});
                if (size <= 0 || !order || order->replace) {
                        // Before it ends, which takes as long as the thread that hangs in the kernel, if one does.
                        (void)!write(replace, "", 1);
                        _exit(EXIT_SUCCESS);
                }
                pool.add(std::move(*order));
        }
}

// False: the broker is gone.
bool wait_for_end(int socket, int replace) {
        std::array<pollfd, 2> polled{pollfd{socket, 0, 0}, pollfd{replace, POLLIN, 0}};
        while (poll(polled.data(), polled.size(), -1) <= 0 || (polled[0].revents == 0 && polled[1].revents == 0)) {
        }
        return polled[0].revents == 0;
}

}  // namespace

Result<std::string> describe_names_filter() {
        const auto profile = built_in_profile();
        return profile ? Result<std::string>(sandbox::dump(*profile)) : std::unexpected(profile.error());
}

void answer_questions(OwnedFd socket) {
        if (!confine_names()) {
                return;
        }
        const pid_t self = getpid();
        int left_behind = 0;
        while (true) {
                std::array<int, 2> replace{-1, -1};
                const pid_t child = pipe2(replace.data(), O_CLOEXEC) == 0 ? fork() : -1;
                const OwnedFd read(replace[0]);
                OwnedFd write(replace[1]);
                if (child == 0) {
                        answer(socket.get(), write.get(), self);
                }
                write.reset();
                left_behind += child > 0 ? 1 : 0;
                if (child > 0 && !wait_for_end(socket.get(), read.get())) {
                        return;
                }
                do {
                        nanosleep(&kBetweenStarts, nullptr);
                        pollfd gone{socket.get(), 0, 0};
                        if (poll(&gone, 1, 0) > 0) {
                                return;
                        }
                        while (left_behind > 0 && waitpid(-1, nullptr, WNOHANG) > 0) {
                                left_behind--;
                        }
                } while (left_behind >= kMaxLeftBehind);
        }
}

}  // namespace sockbroker
