// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "sandbox/run/confine.h"
#include "sandbox/supervise/log.h"
#include "sandbox/supervise/own_filter.h"

namespace sockbroker::supervise {

namespace {

enum class Kind : std::uint8_t { kLook, kListener };

struct Question {
        Kind kind = Kind::kLook;
        pid_t pid = 0;
        int number = -1;            // of a descriptor
        std::uint64_t address = 0;  // of kPattern
};

struct Answer {
        int errnum = 0;
        std::array<char, 128> what{};
};

constexpr std::uint64_t kPattern = 0x5ec0c0de0f11ce5a;
const volatile std::uint64_t pattern = kPattern;  // what is read for a trial

Answer answer_of(const Error& error) {
        Answer answer{.errnum = error.errnum == 0 ? EIO : error.errnum};
        std::strncpy(answer.what.data(), error.message.c_str(), answer.what.size() - 1);
        return answer;
}

Result<void> ask(int fd, const Question& question) {
        Answer answer;
        if (::send(fd, &question, sizeof question, MSG_NOSIGNAL) != sizeof question ||
            ::recv(fd, &answer, sizeof answer, 0) != sizeof answer) {
                return fail("the supervisor has ended; its reason stands above");
        }
        answer.what.back() = 0;
        return answer.errnum == 0 ? Result<void>{} : fail(answer.errnum, answer.what.data());
}

Result<OwnedFd> look(const Question& question) {
        const auto target = Target::open(question.pid);
        if (!target) {
                return std::unexpected(target.error());
        }
        auto fd = target->descriptor(question.number);
        if (!fd) {
                return fd;
        }
        std::uint64_t there = 0;
        if (const auto read = target->read(question.address, std::as_writable_bytes(std::span(&there, 1))); !read) {
                return std::unexpected(read.error());
        }
        return there == kPattern ? std::move(fd) : fail(EFAULT, "cannot read the program's memory");
}

sandbox::Filter own_filter(bool names) {
        const auto profile = own_profile(names);
        auto filter = profile ? sandbox::compile(*profile) : fail("no profile");
        return filter ? std::move(*filter) : sandbox::Filter{};
}

constexpr std::array kFaults = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};

void ignore_signals() {
        // Whatever is sent to all processes of the unit, real-time signals too; those of its own faults excepted.
        for (int number = 1; number <= SIGRTMAX; number++) {
                if (std::ranges::find(kFaults, number) == kFaults.end()) {
                        ::signal(number, SIG_IGN);
                }
        }
        struct sigaction wake {};
        wake.sa_handler = [](int) {};  // ends a system call, Notifications::receive()
        ::sigaction(SIGALRM, &wake, nullptr);
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Keeps standard error and these, and nothing else of what the program has or gets.
void close_others(std::vector<int> keep) {
        const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        for (const int standard : {STDIN_FILENO, STDOUT_FILENO}) {
                // Where there is no /dev/null the program's own must not be kept: who reads to its end would wait.
                if (null < 0 || ::dup2(null, standard) < 0) {
                        ::close(standard);
                }
        }
        std::ranges::sort(keep);
        unsigned next = 3;
        for (const int fd : keep) {
                if (static_cast<unsigned>(fd) > next) {
                        ::close_range(next, static_cast<unsigned>(fd) - 1, 0);
                }
                next = static_cast<unsigned>(fd) + 1;
        }
        ::close_range(next, ~0U, 0);
}

Result<void> confine(const sandbox::Filter& filter) {
        if (auto done = launcher::give_up_privileges(); !done) {
                return done;
        }
        if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || ::chdir("/") != 0) {
                return fail_errno("cannot confine the supervisor");
        }
        return filter.programs.empty() ? fail("the supervisor's own filter cannot be made")
                                       : filter.install_in_this_thread();
}

// A program may raise its soft limit, and what is held for it is here before it is there.
void raise_descriptor_limit() {
        rlimit limit{};
        if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void)::setrlimit(RLIMIT_NOFILE, &limit);  // then it has fewer, and tells
        }
}

// The supervisor's life.
int supervise(Settings settings, std::vector<Passed> passed, int fd, const sandbox::Filter& filter) {
        ignore_signals();
        std::vector<int> keep{fd};
        for (const auto& one : passed) {
                keep.push_back(one.fd.get());
        }
        close_others(keep);
        raise_descriptor_limit();
        ::prctl(PR_SET_NAME, "sockbroker-sup", 0, 0, 0);
        OwnedFd words(fd);
        const auto tell = [&](const Answer& answer) {
                return ::send(words.get(), &answer, sizeof answer, MSG_NOSIGNAL) == sizeof answer;
        };
        Spares spares;
        for (auto& one : passed) {
                spares.add(one.service, std::move(one.fd));
        }
        if (const auto confined = confine(filter); !confined) {
                say(confined.error().text());
                return 1;
        }
        for (;;) {
                Question question;
                if (::recv(words.get(), &question, sizeof question, 0) != sizeof question) {
                        return 0;  // there will be no program
                }
                auto found = look(question);
                if (!found || question.kind == Kind::kLook) {
                        if (!tell(found ? Answer{} : answer_of(found.error()))) {
                                return 0;
                        }
                        continue;
                }
                auto notifications = Notifications::of(std::move(*found));
                if (!notifications) {
                        (void)tell(answer_of(notifications.error()));
                        return 1;
                }
                if (!tell({})) {
                        return 0;
                }
                words.reset();
                if (::getppid() == question.pid) {
                        say("the supervisor is a child of the program, which is process 1 of its pid namespace or a "
                            "subreaper: a program that waits until it has no child waits for ever; let an init "
                            "start it (podman run --init, tini)");
                }
                Supervisor(std::move(settings), std::move(*notifications), std::move(spares), question.pid).run();
                return 0;
        }
}

Question question_of(Kind kind, int number) {
        return {.kind = kind,
                .pid = ::getpid(),
                .number = number,
                .address = reinterpret_cast<std::uint64_t>(&pattern)};
}

}  // namespace

Result<Session> Session::begin(Settings settings, std::vector<Passed> passed) {
        std::array<int, 2> pair{};
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
                return fail_errno("cannot make a pair of sockets for the supervisor");
        }
        Session session{OwnedFd(pair[0])};
        OwnedFd theirs(pair[1]);
        const auto filter = own_filter(settings.names);
        const pid_t between = ::fork();
        if (between < 0) {
                return fail_errno("cannot start the supervisor (TasksMax=, LimitNPROC=)");
        }
        if (between == 0) {
                session.fd_.reset();
                const pid_t child = ::fork();
                if (child != 0) {
                        ::_exit(child < 0 ? errno : 0);
                }
                int status = 1;
                try {
                        status = supervise(std::move(settings), std::move(passed), theirs.release(), filter);
                } catch (const std::exception& error) {
                        say(error.what());
                }
                ::_exit(status);
        }
        int status = 0;
        while (::waitpid(between, &status, 0) < 0 && errno == EINTR) {
        }
        if (status != 0) {
                return fail(WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                            "cannot start the supervisor (TasksMax=, LimitNPROC=)");
        }
        return session;
}

Result<void> Session::move_above(int first) {
        const int moved = ::fcntl(fd_.get(), F_DUPFD_CLOEXEC, first);
        if (moved < 0) {
                return fail_errno("cannot arrange the descriptors for the program (LimitNOFILE=?)");
        }
        fd_.reset(moved);
        return {};
}

Result<void> Session::check_access() const {
        return ask(fd_.get(), question_of(Kind::kLook, fd_.get()));
}

Result<void> Session::hand_over(OwnedFd listener) {
        auto done = ask(fd_.get(), question_of(Kind::kListener, listener.get()));
        fd_.reset();
        return done;
}

}  // namespace sockbroker::supervise
