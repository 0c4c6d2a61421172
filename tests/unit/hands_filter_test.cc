// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The system call filters of the processes that touch strangers' descriptors: as text, as data, and by the kernel.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>

#include "broker/hands/roles.h"
#include "broker/protocol/socket_options.h"
#include "sandbox/evaluator.h"
#include "tests/unit/support/fate.h"

namespace sockbroker::hands {
namespace {

using sandbox::test::answer;
using sandbox::test::Fate;

const std::string kGoldens = SOCKBROKER_SOURCE_ROOT "/tests/data/hands/";
constexpr std::uint64_t kFork = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
constexpr std::uint64_t kOwn = MAP_PRIVATE | MAP_ANONYMOUS;

const std::vector<std::string> kNames{"intake", "disposal", "holder", "door", "zygote"};

Result<sandbox::Profile> profile(const std::string& name) {
        for (std::size_t i = 0; i < kRoles; i++) {
                if (to_string(static_cast<Role>(i)) == name) {
                        return profile_of(static_cast<Role>(i));
                }
        }
        return zygote_profile();
}

sandbox::Filter filter(const std::string& name) {
        const auto found = profile(name);
        EXPECT_TRUE(found) << found.error().text();
        auto compiled = found ? sandbox::compile(*found) : std::unexpected(found.error());
        EXPECT_TRUE(compiled) << compiled.error().text();
        return compiled.value_or(sandbox::Filter{});
}

struct Call {
        const char* name;
        sandbox::Arguments arguments;
        std::map<std::string, Fate> fates;  // by process; "" for all others
};

const Fate A = Fate::kAllowed;
const Fate P = Fate::kEperm;
const Fate N = Fate::kEnosys;
const Fate K = Fate::kKilled;

const std::vector<Call> kCalls{
        // What each of them is for.
        {"recvmsg", {7}, {{"", A}, {"door", P}}},
        {"recvmsg", {7, 0, MSG_PEEK | MSG_DONTWAIT}, {{"", A}}},
        {"recvmsg", {7, 0, MSG_DONTWAIT}, {{"", A}, {"door", P}}},
        {"recvfrom", {7, 0, 0, MSG_DONTWAIT}, {{"", N}, {"door", A}, {"zygote", A}}},
        {"recvfrom", {7}, {{"", N}, {"door", P}, {"zygote", P}}},
        {"write", {3}, {{"", A}, {"door", N}}},
        {"write", {7}, {{"", P}, {"door", N}}},
        {"sendmsg", {7}, {{"", N}, {"holder", A}, {"door", A}, {"zygote", A}}},
        {"accept4", {4}, {{"", N}, {"door", A}, {"zygote", A}}},
        {"getsockopt", {7, SOL_SOCKET, SO_DOMAIN}, {{"", A}, {"disposal", N}, {"door", P}}},
        {"getsockopt", {7, SOL_SOCKET, SO_PEERCRED}, {{"", A}, {"disposal", N}}},
        {"getsockname", {7}, {{"", A}, {"disposal", N}, {"door", N}}},
        {"getpeername", {7}, {{"", A}, {"disposal", N}, {"door", N}}},
        {"setsockopt", {7, SOL_SOCKET, SO_PASSCRED}, {{"", N}, {"door", A}, {"zygote", A}}},
        {"setsockopt", {7, SOL_SOCKET, SO_LINGER}, {{"", N}, {"door", P}, {"zygote", P}}},
        {"setsockopt", {7, SOL_IP, IP_TRANSPARENT}, {{"", N}, {"door", P}, {"zygote", P}}},
        {"shutdown", {7}, {{"", N}, {"door", A}, {"zygote", A}}},
        {"bpf", {BPF_MAP_UPDATE_ELEM}, {{"", A}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_MAP_LOOKUP_ELEM}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_MAP_DELETE_ELEM}, {{"", A}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_MAP_CREATE}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_PROG_LOAD}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_PROG_TEST_RUN}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_OBJ_GET}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_LINK_UPDATE}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"bpf", {BPF_LINK_CREATE}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"fcntl", {7, F_GETFD}, {{"", A}, {"disposal", N}, {"door", N}}},
        {"fcntl", {7, F_DUPFD_CLOEXEC}, {{"", P}, {"disposal", N}, {"door", N}, {"holder", A}, {"zygote", A}}},
        {"fcntl", {7, F_SETFL}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"fcntl", {7, F_SETOWN, 1}, {{"", P}, {"disposal", N}, {"door", N}}},
        {"close", {7}, {{"", A}}},
        // Memory: nobody's file, and no code.
        {"mmap", {0, 4096, PROT_READ | PROT_WRITE, kOwn}, {{"", A}}},
        {"mmap", {0, 4096, PROT_READ | PROT_EXEC, kOwn}, {{"", P}}},
        {"mmap", {0, 4096, PROT_READ, MAP_PRIVATE, 7}, {{"", P}}},
        {"mmap", {0, 4096, PROT_READ, MAP_SHARED, 7}, {{"", P}}},
        {"mmap", {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS}, {{"", P}}},
        {"mprotect", {0, 4096, PROT_READ}, {{"", N}, {"zygote", A}}},
        {"mprotect", {0, 4096, PROT_READ | PROT_WRITE}, {{"", N}, {"zygote", P}}},
        {"mprotect", {0, 4096, PROT_READ | PROT_EXEC}, {{"", N}, {"zygote", P}}},
        {"userfaultfd", {}, {{"", N}}},
        {"shmat", {}, {{"", N}}},
        {"remap_file_pages", {}, {{"", N}}},
        {"process_madvise", {}, {{"", N}}},
        // Nothing else passes descriptors or bytes on.
        {"sendto", {7}, {{"", N}}},
        {"sendmmsg", {7}, {{"", N}}},
        {"recvmmsg", {7}, {{"", N}}},
        {"read", {7}, {{"", N}, {"zygote", P}}},
        {"read", {4}, {{"", N}, {"zygote", A}}},
        {"writev", {3}, {{"", N}}},
        {"splice", {}, {{"", N}}},
        {"vmsplice", {}, {{"", N}}},
        {"sendfile", {}, {{"", N}}},
        {"dup", {7}, {{"", N}}},
        {"dup2", {7}, {{"", N}}},
        {"dup3", {7}, {{"", N}, {"zygote", A}}},
        {"close_range", {3}, {{"", N}, {"zygote", A}}},
        {"pidfd_getfd", {}, {{"", N}}},
        {"io_uring_setup", {}, {{"", N}}},
        // Nothing is made or opened.
        {"socket", {AF_UNIX}, {{"", N}}},
        {"socket", {AF_INET, SOCK_STREAM}, {{"", N}}},
        {"socketpair", {AF_UNIX}, {{"", N}}},
        {"connect", {7}, {{"", N}}},
        {"bind", {7}, {{"", N}}},
        {"listen", {7}, {{"", N}}},
        {"openat", {0, 0, O_RDONLY}, {{"", N}}},
        {"open", {}, {{"", N}}},
        {"memfd_create", {}, {{"", N}}},
        {"ioctl", {7, 0x5401}, {{"", N}}},
        {"fstat", {7}, {{"", N}}},
        {"pipe2", {}, {{"", N}, {"holder", A}, {"zygote", A}}},
        {"eventfd2", {}, {{"", N}}},
        // No other process.
        {"clone", {kFork}, {{"", N}, {"zygote", A}}},
        {"clone", {kFork | CLONE_NEWUSER}, {{"", N}, {"zygote", P}}},
        {"clone", {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}, {{"", N}, {"zygote", P}}},
        {"clone3", {}, {{"", N}}},
        {"fork", {}, {{"", N}}},
        {"vfork", {}, {{"", N}}},
        {"kill", {1, SIGKILL}, {{"", N}, {"zygote", A}}},
        {"kill", {1, SIGTERM}, {{"", N}, {"zygote", P}}},
        {"wait4", {}, {{"", N}, {"zygote", A}}},
        {"tgkill", {1, 1, SIGKILL}, {{"", N}}},
        {"pidfd_open", {1}, {{"", N}}},
        {"pidfd_send_signal", {}, {{"", N}}},
        {"ptrace", {16, 1}, {{"", K}}},
        {"process_vm_readv", {1}, {{"", K}}},
        {"process_vm_writev", {1}, {{"", K}}},
        {"execve", {}, {{"", K}}},
        {"execveat", {}, {{"", K}}},
        // No way to more.
        {"prctl", {PR_SET_NAME}, {{"", N}, {"zygote", A}}},
        {"prctl", {PR_SET_SECCOMP}, {{"", N}, {"zygote", A}}},
        {"prctl", {PR_SET_DUMPABLE, 1}, {{"", N}, {"zygote", P}}},
        {"prctl", {PR_SET_PTRACER, 1}, {{"", N}, {"zygote", P}}},
        {"seccomp", {}, {{"", N}}},
        {"capset", {}, {{"", N}}},
        {"setresuid", {}, {{"", N}}},
        {"setns", {}, {{"", N}}},
        {"unshare", {}, {{"", N}}},
        {"prlimit64", {0, 7, 0x1000}, {{"", N}}},
        {"init_module", {}, {{"", K}}},
        {"finit_module", {}, {{"", K}}},
        {"delete_module", {}, {{"", K}}},
        {"kexec_load", {}, {{"", K}}},
        {"kexec_file_load", {}, {{"", K}}},
        {"perf_event_open", {}, {{"", N}}},
        {"keyctl", {}, {{"", N}}},
        {"mount", {}, {{"", N}}},
};

Fate fate_of(const Call& call, const std::string& process) {
        const auto found = call.fates.find(process);
        return found == call.fates.end() ? call.fates.at("") : found->second;
}

int number_of(const std::string& name) {
        return seccomp_syscall_resolve_name(name.c_str());
}

class HandsFilter : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Processes, HandsFilter, testing::ValuesIn(kNames), [](const auto& one) { return one.param; });

// Whoever widens one sees it here, and so does the reviewer.
TEST_P(HandsFilter, IsTheOneThatWasReviewed) {
        const auto found = profile(GetParam());
        ASSERT_TRUE(found) << found.error().text();
        const auto path = kGoldens + GetParam() + ".txt";
        std::ifstream file(path);
        std::ostringstream golden;
        golden << file.rdbuf();
        if (golden.str() != sandbox::dump(*found)) {
                const auto now = testing::TempDir() + "filter-" + GetParam() + ".txt";
                std::ofstream(now) << sandbox::dump(*found);
                FAIL() << "differs; if that is meant: cp " << now << " " << path;
        }
}

TEST_P(HandsFilter, DecidesEachCallOfTheTable) {
        const auto compiled = filter(GetParam());
        for (const Call& call : kCalls) {
                ASSERT_NE(number_of(call.name), __NR_SCMP_ERROR) << call.name;
                seccomp_data data{.nr = number_of(call.name), .arch = seccomp_arch_native()};
                std::ranges::copy(call.arguments, data.args);
                EXPECT_EQ(sandbox::evaluate(compiled, data), answer(fate_of(call, GetParam())))
                        << call.name << ' ' << call.arguments[0] << ' ' << call.arguments[1] << ' '
                        << call.arguments[2];
        }
}

TEST_P(HandsFilter, EachConditionIsInTheTable) {
        const auto found = profile(GetParam());
        ASSERT_TRUE(found);
        for (const auto& [name, rule] : found->rules) {
                const auto with = [&](bool allowed) {
                        return std::ranges::any_of(kCalls, [&](const Call& call) {
                                return name == call.name && (fate_of(call, GetParam()) == Fate::kAllowed) == allowed;
                        });
                };
                if (rule.action.kind != sandbox::ActionKind::kAllow || rule.conditional()) {
                        EXPECT_TRUE(with(false)) << name;
                }
                if (rule.conditional()) {
                        EXPECT_TRUE(with(true)) << name;
                }
        }
}

// As the processes are: with the zygote's filter under their own.
TEST_P(HandsFilter, TheKernelRefusesEachDeniedCallOfTheTable) {
        const auto below = filter("zygote");
        const auto own = filter(GetParam());
        for (const Call& call : kCalls) {
                const Fate fate = fate_of(call, GetParam());
                const int number = number_of(call.name);
                if (fate == Fate::kAllowed || number < 0) {
                        continue;
                }
                const pid_t child = fork();
                if (child == 0) {
                        prctl(PR_SET_DUMPABLE, 0);  // no core of those that are killed
                        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !below.install_in_this_thread() ||
                            (GetParam() != "zygote" && !own.install_in_this_thread())) {
                                _exit(200);
                        }
                        const auto& a = call.arguments;
                        errno = 0;
                        _exit(syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) == -1 ? errno : 201);
                }
                int status = 0;
                waitpid(child, &status, 0);
                const int expected = fate == Fate::kKilled ? -SIGSYS : fate == Fate::kEperm ? EPERM : ENOSYS;
                EXPECT_EQ(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status), expected) << call.name;
        }
}

// A filter of a child only ever takes more away.
TEST(ZygoteFilter, AllowsWhatItsChildrenAreAllowed) {
        const auto below = filter("zygote");
        for (const Call& call : kCalls) {
                seccomp_data data{.nr = number_of(call.name), .arch = seccomp_arch_native()};
                std::ranges::copy(call.arguments, data.args);
                for (const auto& name : kNames) {
                        if (fate_of(call, name) == Fate::kAllowed) {
                                EXPECT_EQ(sandbox::evaluate(below, data), SECCOMP_RET_ALLOW)
                                        << name << ' ' << call.name;
                        }
                }
        }
}

}  // namespace
}  // namespace sockbroker::hands
