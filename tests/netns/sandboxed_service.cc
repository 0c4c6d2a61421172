// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A service that has been taken over, for row S4: it serves its passed sockets in a thread, as tests/harness/service.py
// does, and in the meantime tries all that a sandbox is to refuse. One line an attempt: its name and the errno that the
// kernel answered, 0 where it was done. Begins with a byte of its standard input, and ends with it.
//
//     sandboxed_service NAME BROKER_PID PIN SETUID_FILE CAPABLE_FILE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/netns/sandboxed_serve.h"

namespace {

struct Given {
        std::string name;
        pid_t broker = 0;
        std::string pin;
        std::string setuid_file;
        std::string capable_file;
        int listeners = 0;
};

int errno_of(long result) {
        return result < 0 ? errno : 0;
}

int open_socket(int domain, int type, int protocol) {
        return errno_of(socket(domain, type, protocol));
}

// On the first passed socket of the family.
int set(const Given& given, int domain, int level, int option, const void* value, socklen_t size) {
        for (int fd = 3; fd < 3 + given.listeners; ++fd) {
                int found = 0;
                socklen_t found_size = sizeof found;
                if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &found, &found_size) == 0 && found == domain) {
                        return errno_of(setsockopt(fd, level, option, value, size));
                }
        }
        return ENOENT;
}

int bind_to(int domain, const char* text) {
        const int fd = socket(domain, SOCK_DGRAM, 0);
        if (fd < 0) {
                return errno;
        }
        sockaddr_storage address{};
        address.ss_family = static_cast<sa_family_t>(domain);
        inet_pton(domain, text,
                  domain == AF_INET ? static_cast<void*>(&reinterpret_cast<sockaddr_in&>(address).sin_addr)
                                    : static_cast<void*>(&reinterpret_cast<sockaddr_in6&>(address).sin6_addr));
        return errno_of(bind(fd, reinterpret_cast<sockaddr*>(&address),
                             domain == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)));
}

// How a client's flow would be taken (row S10): of a socket of its own, or where none can be made, of a passed one.
int connect_datagram(const Given& given) {
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        for (int passed = 3; fd < 0 && passed < 3 + given.listeners; ++passed) {
                int type = 0;
                socklen_t size = sizeof type;
                fd = getsockopt(passed, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM ? passed : -1;
        }
        const sockaddr_in peer{.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        return errno_of(connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer));
}

// Runs a program that would have more privilege than this one; `none` is in what it prints if it has not. The errno of
// execve if it cannot be run, 0: without any gain, -1: it gained.
int gain_by(const std::vector<std::string>& command, const std::string& none) {
        int ends[2];
        if (pipe(ends) < 0) {
                return -1;
        }
        const pid_t child = fork();
        if (child == 0) {
                std::vector<char*> words;
                for (const std::string& word : command) {
                        words.push_back(const_cast<char*>(word.c_str()));
                }
                words.push_back(nullptr);
                dup2(ends[1], 1);
                execv(words[0], words.data());
                _exit(errno);
        }
        close(ends[1]);
        char text[4096];
        std::string output;
        for (ssize_t size = 0; (size = read(ends[0], text, sizeof text)) > 0;) {
                output.append(text, static_cast<std::size_t>(size));
        }
        close(ends[0]);
        int status = 0;
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        return output.find(none) != std::string::npos ? 0 : -1;
}

// In a child, for what would change or end this process; -1: killed by a signal, which is no answer.
int in_child(const std::function<int()>& act) {
        const pid_t child = fork();
        if (child == 0) {
                _exit(act());
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#ifdef __x86_64__
// getpid of i386 by its own gate; a kernel without it raises SIGSEGV.
int by_int80() {
        long result = 20;
        asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
        const int answer = static_cast<int>(result);
        return answer < 0 ? -answer : 0;
}
#endif

int clone_into(unsigned long flags) {
        return in_child([=] {
                const long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
                if (child == 0) {
                        _exit(0);
                }
                return errno_of(child);
        });
}

struct Attempt {
        const char* name;
        std::function<int(const Given&)> act;
};

const int kOne = 1;
const int kAboveOrdinary = 7;  // SO_PRIORITY has 0 to 6 for everybody (socket(7))

std::vector<Attempt> attempts() {
        using G = const Given&;
        std::vector<Attempt> all = {
                {"raw-ipv4", [](G) { return open_socket(AF_INET, SOCK_RAW, IPPROTO_UDP); }},
                {"raw-ipv6", [](G) { return open_socket(AF_INET6, SOCK_RAW, IPPROTO_UDP); }},
                {"ping", [](G) { return open_socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP); }},
                {"sctp", [](G) { return open_socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP); }},
                {"mptcp", [](G) { return open_socket(AF_INET, SOCK_STREAM, 262); }},
                {"packet", [](G) { return open_socket(AF_PACKET, SOCK_RAW, htons(0x0800)); }},
                {"netlink", [](G) { return open_socket(AF_NETLINK, SOCK_RAW, 0); }},
                {"vsock", [](G) { return open_socket(AF_VSOCK, SOCK_STREAM, 0); }},
                {"alg", [](G) { return open_socket(AF_ALG, SOCK_SEQPACKET, 0); }},
                {"xdp", [](G) { return open_socket(AF_XDP, SOCK_RAW, 0); }},
                {"upper-half", [](G) { return errno_of(syscall(SYS_socket, 0x100000000L | AF_PACKET, SOCK_RAW, 0)); }},
                {"bind-foreign-ipv4", [](G) { return bind_to(AF_INET, "203.0.113.9"); }},
                {"bind-foreign-ipv6", [](G) { return bind_to(AF_INET6, "2001:db8:ffff::9"); }},

                {"ip-transparent", [](G g) { return set(g, AF_INET, IPPROTO_IP, IP_TRANSPARENT, &kOne, sizeof kOne); }},
                {"ipv6-transparent", [](G g) { return set(g, AF_INET6, IPPROTO_IPV6, 75, &kOne, sizeof kOne); }},
                {"ip-freebind", [](G g) { return set(g, AF_INET, IPPROTO_IP, IP_FREEBIND, &kOne, sizeof kOne); }},
                {"ipv6-freebind", [](G g) { return set(g, AF_INET6, IPPROTO_IPV6, 78, &kOne, sizeof kOne); }},
                {"ip-hdrincl", [](G g) { return set(g, AF_INET, IPPROTO_IP, IP_HDRINCL, &kOne, sizeof kOne); }},
                {"ip-options", [](G g) { return set(g, AF_INET, IPPROTO_IP, IP_OPTIONS, nullptr, 0); }},
                {"so-mark", [](G g) { return set(g, AF_INET, SOL_SOCKET, SO_MARK, &kOne, sizeof kOne); }},
                {"so-priority",
                 [](G g) { return set(g, AF_INET, SOL_SOCKET, SO_PRIORITY, &kAboveOrdinary, sizeof kAboveOrdinary); }},
                {"so-bindtodevice", [](G g) { return set(g, AF_INET, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3); }},
                {"so-rcvbufforce", [](G g) { return set(g, AF_INET, SOL_SOCKET, SO_RCVBUFFORCE, &kOne, sizeof kOne); }},
                {"so-attach-filter",
                 [](G g) {
                         sock_filter whole = {BPF_RET | BPF_K, 0, 0, 0xffff};
                         const sock_fprog program{1, &whole};
                         return set(g, AF_INET, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
                 }},
                {"tcp-repair", [](G g) { return set(g, AF_INET, IPPROTO_TCP, TCP_REPAIR, &kOne, sizeof kOne); }},
                {"tcp-ulp", [](G g) { return set(g, AF_INET, IPPROTO_TCP, TCP_ULP, "tls", 4); }},

                {"io-uring",
                 [](G) {
                         char parameters[120] = {};
                         return errno_of(syscall(SYS_io_uring_setup, 4, parameters));
                 }},
                {"bpf-map-create",
                 [](G) {
                         bpf_attr attr{};
                         attr.map_type = BPF_MAP_TYPE_ARRAY;
                         attr.key_size = attr.value_size = 4;
                         attr.max_entries = 1;
                         return errno_of(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
                 }},
                {"bpf-open-pin",
                 [](G g) {
                         bpf_attr attr{};
                         attr.pathname = reinterpret_cast<std::uint64_t>(g.pin.c_str());
                         return errno_of(syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof attr));
                 }},
                {"open-pin", [](G g) { return errno_of(open(g.pin.c_str(), O_RDONLY)); }},
                {"remove-pin", [](G g) { return errno_of(unlink(g.pin.c_str())); }},

                {"ptrace-broker", [](G g) { return errno_of(ptrace(PTRACE_ATTACH, g.broker, nullptr, nullptr)); }},
                {"ptrace-own-child",
                 [](G) {
                         const pid_t child = fork();
                         if (child == 0) {
                                 pause();
                                 _exit(0);
                         }
                         const int got = errno_of(ptrace(PTRACE_SEIZE, child, nullptr, nullptr));
                         kill(child, SIGKILL);
                         waitpid(child, nullptr, 0);
                         return got;
                 }},
                {"read-broker",
                 [](G g) {
                         char byte = 0;
                         const iovec here{&byte, 1};
                         return errno_of(process_vm_readv(g.broker, &here, 1, &here, 1, 0));
                 }},
                {"write-broker",
                 [](G g) {
                         char byte = 0;
                         const iovec here{&byte, 1};
                         return errno_of(process_vm_writev(g.broker, &here, 1, &here, 1, 0));
                 }},
                {"open-broker-memory",
                 [](G g) { return errno_of(open(("/proc/" + std::to_string(g.broker) + "/mem").c_str(), O_RDWR)); }},
                {"take-broker-descriptor",
                 [](G g) {
                         const long pidfd = syscall(SYS_pidfd_open, g.broker, 0);
                         return pidfd < 0 ? -1 : errno_of(syscall(SYS_pidfd_getfd, pidfd, 3, 0));
                 }},
                {"kill-broker", [](G g) { return errno_of(kill(g.broker, SIGKILL)); }},

                {"capset",
                 [](G) {
                         const cap_value_t wanted = CAP_NET_ADMIN;
                         cap_t capabilities = cap_init();
                         cap_set_flag(capabilities, CAP_PERMITTED, 1, &wanted, CAP_SET);
                         cap_set_flag(capabilities, CAP_EFFECTIVE, 1, &wanted, CAP_SET);
                         const int got = errno_of(cap_set_proc(capabilities));
                         cap_free(capabilities);
                         return got;
                 }},
                {"ambient", [](G) { return errno_of(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0)); }},
                {"securebits", [](G) { return errno_of(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0)); }},
                {"setuid", [](G) { return errno_of(setuid(0)); }},
                {"setresuid", [](G) { return errno_of(syscall(SYS_setresuid, 0, 0, 0)); }},
                {"setgroups", [](G) { return errno_of(syscall(SYS_setgroups, 0, nullptr)); }},

                {"unshare-user", [](G) { return errno_of(unshare(CLONE_NEWUSER)); }},
                {"unshare-net", [](G) { return errno_of(unshare(CLONE_NEWNET)); }},
                {"clone-user", [](G) { return clone_into(CLONE_NEWUSER); }},
                {"clone-user-net", [](G) { return clone_into(CLONE_NEWUSER | CLONE_NEWNET); }},
                {"clone3",
                 [](G) {
                         std::uint64_t arguments[11] = {CLONE_NEWUSER};
                         return errno_of(syscall(SYS_clone3, arguments, sizeof arguments));
                 }},
                {"setns", [](G) { return errno_of(setns(open("/proc/self/ns/net", O_RDONLY), CLONE_NEWNET)); }},
                {"mount", [](G) { return errno_of(mount("none", "/run", "tmpfs", 0, nullptr)); }},
                {"umount", [](G) { return errno_of(umount2("/run", MNT_DETACH)); }},
                {"fsopen", [](G) { return errno_of(syscall(SYS_fsopen, "tmpfs", 0)); }},
                {"chroot", [](G) { return errno_of(chroot("/run")); }},
                {"pivot-root", [](G) { return errno_of(syscall(SYS_pivot_root, "/", "/")); }},

                {"keyctl", [](G) { return errno_of(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, -3, 0)); }},
                {"add-key", [](G) { return errno_of(syscall(SYS_add_key, "user", "x", "y", 1, -3)); }},
                {"perf-event-open",
                 [](G) {
                         perf_event_attr attr{};
                         attr.type = PERF_TYPE_SOFTWARE;
                         attr.size = sizeof attr;
                         attr.exclude_kernel = 1;
                         return errno_of(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
                 }},
                {"userfaultfd", [](G) { return errno_of(syscall(SYS_userfaultfd, 1)); }},
                {"open-by-handle-at", [](G) { return errno_of(syscall(SYS_open_by_handle_at, AT_FDCWD, nullptr, 0)); }},
                {"fanotify", [](G) { return errno_of(syscall(SYS_fanotify_init, 0x200, 0)); }},
                {"init-module", [](G) { return errno_of(syscall(SYS_init_module, nullptr, 0, "")); }},
                {"kexec", [](G) { return errno_of(syscall(SYS_kexec_load, 0, 0, nullptr, 0)); }},
                {"personality", [](G) { return errno_of(syscall(SYS_personality, 0x0040000)); }},
                {"set-flags-of-interface",
                 [](G) {
                         ifreq request{};
                         std::strcpy(request.ifr_name, "lo");
                         return errno_of(ioctl(3, SIOCSIFFLAGS, &request));
                 }},
                {"type-into-terminal", [](G) { return errno_of(ioctl(0, TIOCSTI, "x")); }},
                {"make-setuid-file", [](G) { return errno_of(open("/tmp", O_TMPFILE | O_WRONLY, 04755)); }},
                {"chmod-setuid", [](G) { return errno_of(chmod("/tmp/none", 04755)); }},
                {"writable-code",
                 [](G) {
                         void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                         return page == MAP_FAILED ? errno : 0;
                 }},
                {"code-later",
                 [](G) {
                         void* const page =
                                 mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                         return errno_of(mprotect(page, 4096, PROT_READ | PROT_EXEC));
                 }},
                {"connect-datagram", connect_datagram},

                {"exec-setuid",
                 [](G g) {
                         return gain_by({g.setuid_file, "-u"}, std::to_string(getuid()) + "\n");
                 }},
                {"exec-capable",
                 [](G g) {
                         return gain_by({g.capable_file, "/proc/self/status"}, "CapPrm:\t0000000000000000");
                 }},
        };
#ifdef __x86_64__
        all.push_back({"int80", [](G) { return in_child(by_int80); }});
        all.push_back({"x32", [](G) { return errno_of(syscall(0x40000000 | SYS_getpid)); }});
#endif
        return all;
}

}  // namespace

int main(int argc, char* argv[]) {
        if (argc != 6) {
                return 2;
        }
        const char* const listeners = std::getenv("LISTEN_FDS");
        const Given given{argv[1], std::atoi(argv[2]),
                          argv[3], argv[4],
                          argv[5], listeners != nullptr ? std::atoi(listeners) : 0};
        std::signal(SIGPIPE, SIG_IGN);
        std::thread(serve_passed, given.listeners, given.name).detach();
        std::puts("serving");
        std::fflush(stdout);
        // Each line asks for all attempts once.
        for (int byte = 0; (byte = std::getchar()) != EOF;) {
                for (const Attempt& attempt : attempts()) {
                        const int answer = attempt.act(given);
                        std::printf("%s %s\n", attempt.name,
                                    answer > 0 ? strerrorname_np(answer) : std::to_string(answer).c_str());
                }
                std::puts("done");
                std::fflush(stdout);
        }
        return 0;
}
