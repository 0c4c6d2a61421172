// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The filter of system calls that is built into the broker: as text, as data, and by the kernel.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <set>

#include "broker/daemon/confine.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/filtered_call.h"

namespace sockbroker {
namespace {

using namespace sandbox::test;

const std::vector<Call> kCalls{
        // bpf(2): maps and programs that are open; none is made and no pin opened.
        {"bpf", {BPF_MAP_LOOKUP_ELEM}, Fate::kAllowed},
        {"bpf", {BPF_MAP_UPDATE_ELEM}, Fate::kAllowed},
        {"bpf", {BPF_MAP_DELETE_ELEM}, Fate::kAllowed},
        {"bpf", {BPF_PROG_TEST_RUN}, Fate::kAllowed},
        {"bpf", {BPF_LINK_DETACH}, Fate::kAllowed},
        {"bpf", {BPF_OBJ_GET_INFO_BY_FD}, Fate::kAllowed},
        {"bpf", {BPF_MAP_CREATE}, Fate::kEperm},
        {"bpf", {BPF_PROG_LOAD}, Fate::kEperm},
        {"bpf", {BPF_OBJ_GET}, Fate::kEperm},
        {"bpf", {BPF_OBJ_PIN}, Fate::kAllowed},
        {"bpf", {BPF_PROG_ATTACH}, Fate::kEperm},
        {"bpf", {BPF_LINK_CREATE}, Fate::kAllowed},
        {"bpf", {BPF_LINK_UPDATE}, Fate::kEperm},
        {"bpf", {BPF_MAP_GET_FD_BY_ID}, Fate::kEperm},
        {"bpf", {BPF_PROG_GET_FD_BY_ID}, Fate::kEperm},
        {"bpf", {BPF_LINK_GET_FD_BY_ID}, Fate::kEperm},
        {"bpf", {BPF_BTF_LOAD}, Fate::kEperm},
        {"bpf", {BPF_RAW_TRACEPOINT_OPEN}, Fate::kEperm},
        {"bpf", {1000}, Fate::kEperm},
        // The kernel takes an int: the upper half of the register means nothing, and must not to the filter.
        {"bpf", {BPF_PROG_LOAD | 1ULL << 32}, Fate::kEperm},
        {"bpf", {BPF_MAP_LOOKUP_ELEM | 1ULL << 32}, Fate::kAllowed},
        // socket(2)
        {"socket", {AF_UNIX, SOCK_STREAM}, Fate::kAllowed},
        {"socket", {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}, Fate::kAllowed},
        {"socket", {AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER}, Fate::kEperm},
        {"socket", {AF_NETLINK, SOCK_RAW, NETLINK_AUDIT}, Fate::kEperm},
        {"socketpair", {AF_UNIX, SOCK_SEQPACKET}, Fate::kAllowed},
        {"socketpair", {AF_TIPC, SOCK_SEQPACKET}, Fate::kEperm},
        {"socket", {AF_INET, SOCK_STREAM}, Fate::kEperm},
        {"socket", {AF_INET6, SOCK_DGRAM}, Fate::kEperm},
        {"socket", {AF_INET, SOCK_RAW, 1}, Fate::kEperm},
        {"socket", {AF_PACKET, SOCK_RAW}, Fate::kEperm},
        {"socket", {AF_VSOCK, SOCK_STREAM}, Fate::kEperm},
        {"socket", {AF_ALG, SOCK_SEQPACKET}, Fate::kEperm},
        {"listen", {}, Fate::kEnosys},
        {"accept4", {}, Fate::kEnosys},
        // setsockopt(2) on what services handed over
        {"setsockopt", {3, SOL_SOCKET, SO_LINGER}, Fate::kEperm},
        {"setsockopt", {3, SOL_SOCKET, SO_PASSCRED}, Fate::kAllowed},
        {"setsockopt", {3, SOL_SOCKET, SO_MARK}, Fate::kEperm},
        {"setsockopt", {3, SOL_SOCKET, SO_BINDTODEVICE}, Fate::kEperm},
        {"setsockopt", {3, SOL_SOCKET, SO_ATTACH_BPF}, Fate::kEperm},
        {"setsockopt", {3, SOL_IP, IP_TRANSPARENT}, Fate::kEperm},
        {"setsockopt", {3, SOL_IPV6, IPV6_TRANSPARENT}, Fate::kEperm},
        {"setsockopt", {3, SOL_IP, SO_LINGER}, Fate::kEperm},
        // memory that can be executed
        {"mmap", {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS}, Fate::kAllowed},
        {"mmap", {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}, Fate::kEperm},
        {"mmap", {0, 4096, PROT_EXEC, MAP_SHARED, 3}, Fate::kEperm},
        {"mprotect", {0, 4096, PROT_READ | PROT_WRITE}, Fate::kAllowed},
        {"mprotect", {0, 4096, PROT_READ | PROT_EXEC}, Fate::kEperm},
        {"pkey_mprotect", {0, 4096, PROT_EXEC, 0}, Fate::kEnosys},
        {"shmat", {}, Fate::kEnosys},
        {"remap_file_pages", {}, Fate::kEnosys},
        {"personality", {0x0400000}, Fate::kEnosys},
        // threads, and no processes
        {"clone", {kThread}, Fate::kAllowed},
        {"clone", {SIGCHLD}, Fate::kEperm},
        {"clone", {kThread | CLONE_NEWUSER}, Fate::kEperm},
        {"clone", {kThread | CLONE_NEWNET}, Fate::kEperm},
        {"clone", {kThread | CLONE_PTRACE}, Fate::kEperm},
        {"clone3", {}, Fate::kEnosys},
        {"fork", {}, Fate::kEnosys},
        {"vfork", {}, Fate::kEnosys},
        {"execve", {}, Fate::kKilled},
        {"execveat", {}, Fate::kKilled},
        // other processes
        {"ptrace", {16, 1}, Fate::kKilled},
        {"process_vm_readv", {1}, Fate::kKilled},
        {"process_vm_writev", {1}, Fate::kKilled},
        {"pidfd_getfd", {}, Fate::kEnosys},
        {"kill", {1, 0}, Fate::kEperm},
        {"tkill", {1, SIGKILL}, Fate::kEperm},
        {"tgkill", {1, 1, SIGKILL}, Fate::kEperm},
        {"rt_sigqueueinfo", {}, Fate::kEnosys},
        {"pidfd_send_signal", {3, 0}, Fate::kAllowed},
        {"pidfd_send_signal", {3, SIGKILL}, Fate::kEperm},
        // files
        {"openat", {kIn, 0, O_RDONLY | O_CLOEXEC}, Fate::kAllowed},
        {"openat", {kIn, 0, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC}, Fate::kAllowed},
        {"openat", {kIn, 0, kCopy, 0600}, Fate::kAllowed},
        {"openat", {kIn, 0, O_WRONLY | O_CLOEXEC}, Fate::kEperm},
        {"openat", {kIn, 0, O_RDWR | O_CLOEXEC}, Fate::kEperm},
        {"openat", {kIn, 0, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600}, Fate::kEperm},
        {"openat", {kIn, 0, O_RDONLY | O_CREAT, 0600}, Fate::kEperm},
        {"openat", {kIn, 0, O_RDONLY | O_TRUNC}, Fate::kEperm},
        {"openat", {kIn, 0, O_TMPFILE | O_RDWR, 0600}, Fate::kEperm},
        {"open", {0, O_RDONLY}, Fate::kEnosys},
        {"openat2", {}, Fate::kEnosys},
        {"open_by_handle_at", {}, Fate::kEnosys},
        {"creat", {}, Fate::kEnosys},
        {"mkdirat", {}, Fate::kEnosys},
        {"mknodat", {}, Fate::kEnosys},
        {"symlinkat", {}, Fate::kEnosys},
        {"linkat", {}, Fate::kEnosys},
        {"fchmod", {}, Fate::kEnosys},
        {"fchmodat", {}, Fate::kEnosys},
        {"fchownat", {}, Fate::kEnosys},
        {"setxattr", {}, Fate::kEnosys},
        {"chroot", {}, Fate::kEnosys},
        {"mount", {}, Fate::kEnosys},
        {"umount2", {}, Fate::kEnosys},
        {"pivot_root", {}, Fate::kEnosys},
        {"fsopen", {}, Fate::kEnosys},
        {"fcntl", {3, F_GETFL}, Fate::kAllowed},
        {"fcntl", {3, F_SETOWN, 1}, Fate::kEperm},
        {"fcntl", {3, F_SETSIG, 9}, Fate::kEperm},
        {"ioctl", {3, TCGETS}, Fate::kAllowed},
        {"ioctl", {3, 0xc040ff0b /* PIDFD_GET_INFO */}, Fate::kAllowed},
        {"ioctl", {3, TIOCSTI}, Fate::kEperm},
        {"ioctl", {3, 0x8914 /* SIOCSIFFLAGS */}, Fate::kEperm},
        // privilege
        {"capset", {}, Fate::kAllowed},  // lowers only: nothing else is permitted any more
        {"prctl", {PR_SET_NAME}, Fate::kAllowed},
        {"prctl", {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 39}, Fate::kEperm},
        {"prctl", {PR_SET_SECUREBITS}, Fate::kEperm},
        {"prctl", {PR_SET_DUMPABLE, 1}, Fate::kEperm},
        {"prctl", {PR_SET_SECCOMP, 1}, Fate::kEperm},
        {"seccomp", {}, Fate::kEnosys},
        {"setuid", {0}, Fate::kEnosys},
        {"setresuid", {0, 0, 0}, Fate::kEnosys},
        {"setfsuid", {0}, Fate::kEnosys},
        {"setgroups", {}, Fate::kEnosys},
        {"setns", {}, Fate::kEnosys},
        {"unshare", {CLONE_NEWUSER}, Fate::kEnosys},
        {"prlimit64", {0, 7, 0}, Fate::kAllowed},
        {"prlimit64", {0, 7, 0x1000}, Fate::kEperm},
        {"prlimit64", {0, 7, 1ULL << 32}, Fate::kEperm},
        {"prlimit64", {1, 7, 0}, Fate::kEperm},
        // the kernel as a whole
        {"membarrier", {1}, Fate::kAllowed},
        {"membarrier", {128}, Fate::kEperm},
        {"init_module", {}, Fate::kKilled},
        {"finit_module", {}, Fate::kKilled},
        {"delete_module", {}, Fate::kKilled},
        {"kexec_load", {}, Fate::kKilled},
        {"kexec_file_load", {}, Fate::kKilled},
        {"io_uring_setup", {}, Fate::kEnosys},
        {"io_uring_enter", {}, Fate::kEnosys},
        {"io_uring_register", {}, Fate::kEnosys},
        {"perf_event_open", {}, Fate::kEnosys},
        {"userfaultfd", {}, Fate::kEnosys},
        {"add_key", {}, Fate::kEnosys},
        {"keyctl", {}, Fate::kEnosys},
        {"reboot", {}, Fate::kEnosys},
        {"settimeofday", {}, Fate::kEnosys},
        {"clock_settime", {}, Fate::kEnosys},
        {"sethostname", {}, Fate::kEnosys},
        {"swapon", {}, Fate::kEnosys},
        {"quotactl", {}, Fate::kEnosys},
        {"modify_ldt", {}, Fate::kEnosys},
        {"iopl", {}, Fate::kEnosys},
};

// How a child under the filter ends that calls `inside`; -N: by signal N.
int end_of_child(const std::function<int()>& inside) {
        const sandbox::Filter filter = filter_of("broker");
        const pid_t child = fork();
        if (child == 0) {
                prctl(PR_SET_DUMPABLE, 0);  // no core of those that are killed
                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !filter.install()) {
                        _exit(100);
                }
                _exit(inside());
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int errno_after(int number, const sandbox::Arguments& a) {
        errno = 0;
        return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) == -1 ? errno : 0;
}

TEST(BrokerFilter, IsBuiltInAsItStandsInTheTree) {
        const auto built_in = describe_filter();
        ASSERT_TRUE(built_in) << built_in.error().text();
        EXPECT_EQ(*built_in, sandbox::dump(profile_of("broker")));
}

// Whoever widens the filter sees it here, and so does the reviewer. To write it anew:
// build/sockbrokerd --dump-seccomp >tests/data/broker_filter.txt
TEST(BrokerFilter, IsTheOneThatWasReviewed) {
        EXPECT_EQ(describe_filter().value_or(""), text_of(kRoot + "/tests/data/broker_filter.txt"));
}

TEST(BrokerFilter, DecidesEachCallOfTheTable) {
        const sandbox::Filter filter = filter_of("broker");
        for (const Call& call : kCalls) {
                ASSERT_NE(number_of(call.name), __NR_SCMP_ERROR) << call.name;
                EXPECT_EQ(sandbox::evaluate(filter, data_of(call)), answer(call.fate)) << text_of(call);
        }
}

TEST(BrokerFilter, TheTableHasEachConditionAndEachDenialOfTheProfile) {
        for (const auto& [name, rule] : profile_of("broker").rules) {
                const auto denied = std::ranges::count_if(
                        kCalls, [&](const Call& call) { return name == call.name && call.fate != Fate::kAllowed; });
                const auto allowed = std::ranges::count_if(
                        kCalls, [&](const Call& call) { return name == call.name && call.fate == Fate::kAllowed; });
                if (rule.action.kind != sandbox::ActionKind::kAllow || rule.conditional()) {
                        EXPECT_GT(denied, 0) << name;
                }
                if (rule.conditional()) {
                        EXPECT_GT(allowed, 0) << name;
                }
        }
}

TEST(BrokerFilter, TheKernelRefusesEachDeniedCallOfTheTable) {
        for (const Call& call : kCalls) {
                const int number = number_of(call.name);
                if (call.fate == Fate::kAllowed || number < 0) {
                        continue;
                }
                const int expected = call.fate == Fate::kKilled ? -SIGSYS : call.fate == Fate::kEperm ? EPERM : ENOSYS;
                EXPECT_EQ(end_of_child([&] { return errno_after(number, call.arguments); }), expected) << text_of(call);
        }
}

TEST(BrokerFilter, TheKernelKnowsNoCallThatTheProfileDoesNotName) {
        // uretprobe and uprobe of x86: newer kernels ask no filter, and end who makes them without such a probe.
        std::set<int> named{335, 336};
        for (const auto& [name, rule] : profile_of("broker").rules) {
                named.insert(number_of(name));
        }
        EXPECT_EQ(end_of_child([&] {
                          for (int number = 0; number < 600; number++) {
                                  if (!named.contains(number) && errno_after(number, {}) != ENOSYS) {
                                          dprintf(2, "system call %d is there\n", number);
                                          return 1;
                                  }
                          }
                          return 0;
                  }),
                  0);
}

#ifdef __x86_64__
TEST(BrokerFilter, TheKernelKillsCallsOfOtherArchitectures) {
        const auto by_interrupt = [] {
                long result = 20;  // getpid of i386
                asm volatile("int $0x80" : "+a"(result) : : "memory");
                return 0;
        };
        EXPECT_EQ(end_of_child([] { return errno_after(SYS_getpid | 0x40000000, {}); }), -SIGSYS);
        if (test::Child(by_interrupt).wait() != 0) {
                GTEST_SKIP() << "this kernel has no 32-bit emulation: int $0x80 ends whoever tries, before any filter";
        }
        EXPECT_EQ(end_of_child(by_interrupt), -SIGSYS);
}
#endif

// abort(3) sends itself a signal, which the filter refuses: the process ends all the same.
TEST(BrokerFilter, AbortStillEndsTheProcess) {
        EXPECT_EQ(end_of_child([]() -> int { abort(); }), -SIGSEGV);
}

TEST(BrokerFilter, DangerousCallsHaveConditionsOrAReason) {
        for (const char* name : {"bpf", "socket", "setsockopt", "mmap", "mprotect", "clone", "ioctl", "prctl", "fcntl",
                                 "openat", "pidfd_send_signal", "prlimit64", "memfd_create", "membarrier"}) {
                const auto profile = profile_of("broker");
                const auto found = profile.rules.find(name);
                ASSERT_NE(found, profile.rules.end()) << name;
                for (const auto& line : found->second.lines) {
                        EXPECT_TRUE(!line.conditions.empty() || !line.comment.empty()) << name;
                }
        }
}

}  // namespace
}  // namespace sockbroker
