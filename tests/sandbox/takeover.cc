// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/sandbox/takeover.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
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

namespace sockbroker {

namespace {

constexpr int kNewFile = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;  // how the broker writes its own

struct Attempt {
        std::string name;
        std::function<long()> run;  // as a system call: -1 and errno
};

template <class... Arguments>
std::function<long()> call(long number, Arguments... arguments) {
        return [=] { return syscall(number, arguments...); };
}

std::function<long()> bpf(int command, const bpf_attr& attributes) {
        return [=]() mutable { return syscall(SYS_bpf, command, &attributes, sizeof attributes); };
}

std::function<long()> open_file(std::string path, int flags) {
        return [path = std::move(path), flags] { return open(path.c_str(), flags, 0600); };
}

// The first descriptor of the process whose link in /proc/self/fd names it so. Nothing is hidden from who is inside.
int descriptor(const char* kind) {
        for (int fd = 3; fd < 1024; fd++) {
                char target[256] = {};
                const std::string link = "/proc/self/fd/" + std::to_string(fd);
                if (readlink(link.c_str(), target, sizeof target - 1) > 0 && strstr(target, kind) != nullptr) {
                        return fd;
                }
        }
        return -1;
}

bpf_attr map_to_create() {
        bpf_attr attributes{};
        attributes.map_type = BPF_MAP_TYPE_ARRAY;
        attributes.key_size = 4;
        attributes.value_size = 8;
        attributes.max_entries = 1;
        return attributes;
}

bpf_attr program_to_load() {
        static const bpf_insn kReturn[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
        bpf_attr attributes{};
        attributes.prog_type = BPF_PROG_TYPE_SK_LOOKUP;
        attributes.expected_attach_type = BPF_SK_LOOKUP;
        attributes.insn_cnt = 2;
        attributes.insns = reinterpret_cast<std::uintptr_t>(kReturn);
        attributes.license = reinterpret_cast<std::uintptr_t>("GPL");
        return attributes;
}

bpf_attr object_at(const std::string& path, int fd = 0) {
        bpf_attr attributes{};
        attributes.pathname = reinterpret_cast<std::uintptr_t>(strdup(path.c_str()));
        attributes.bpf_fd = static_cast<std::uint32_t>(fd);
        return attributes;
}

bpf_attr by_id() {
        bpf_attr attributes{};
        attributes.map_id = 1;
        return attributes;
}

long raise_capability() {
        const cap_t caps = cap_get_proc();
        const cap_value_t wanted = CAP_BPF;
        cap_set_flag(caps, CAP_PERMITTED, 1, &wanted, CAP_SET);
        cap_set_flag(caps, CAP_EFFECTIVE, 1, &wanted, CAP_SET);
        return cap_set_proc(caps);
}

// Of memory that a program could be written into.
long execute(void* memory) {
        return memory == MAP_FAILED ? -1 : mprotect(memory, 4096, PROT_READ | PROT_EXEC);
}

long map_memfd() {
        const int fd = memfd_create("code", MFD_CLOEXEC);
        const char code[4096] = {};
        if (fd < 0 || write(fd, code, sizeof code) < 0) {
                return -1;
        }
        return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0;
}

long connect_to(const std::string& name, int type) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name.copy(address.sun_path, sizeof address.sun_path - 1);
        const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        return fd < 0 ? -1
                      : connect(fd, reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(2 + name.size()));
}

long make_socket(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return fd < 0 ? -1 : bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
}

// A local route.
long add_route() {
        struct {
                nlmsghdr header;
                rtmsg route;
                rtattr attribute;
                in_addr destination;
                rtattr out;
                int interface;
        } request{};
        request.header = {sizeof request, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 1, 0};
        request.route = {AF_INET, 32, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0};
        request.attribute = {RTA_LENGTH(4), RTA_DST};
        request.destination.s_addr = htonl(0xc6336401);  // 198.51.100.1
        request.out = {RTA_LENGTH(4), RTA_OIF};
        request.interface = 1;
        struct {
                nlmsghdr header;
                nlmsgerr error;
                char more[512];
        } answer{};
        const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd < 0 || send(fd, &request, sizeof request, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0) {
                return -1;
        }
        errno = -answer.error.error;
        return errno == 0 ? 0 : -1;
}

long write_map() {
        std::uint32_t key = 0;
        std::vector<char> value(65536);
        bpf_attr attributes{};
        for (int fd = 3; fd < 64; fd++) {  // whatever map is found first: reading one and writing it back
                attributes.map_fd = static_cast<std::uint32_t>(fd);
                attributes.key = reinterpret_cast<std::uintptr_t>(&key);
                attributes.value = reinterpret_cast<std::uintptr_t>(value.data());
                if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof attributes) == 0 &&
                    syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attributes, sizeof attributes) == 0) {
                        return 0;
                }
        }
        return -1;
}

std::string environment(const char* name, const char* otherwise) {
        const char* value = getenv(name);
        return value == nullptr ? otherwise : value;
}

std::vector<Attempt> attempts(const DaemonOptions& options) {
        const int victim = std::atoi(environment("SOCKBROKER_VICTIM", "1").c_str());
        const std::string pin = options.pin_dir() + "/sockets";
        const int map = descriptor("bpf-map");
        char* const nothing[] = {nullptr};
        void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        std::vector<Attempt> all{
                // More power over the kernel
                {"load-a-program", bpf(BPF_PROG_LOAD, program_to_load())},
                {"make-a-map", bpf(BPF_MAP_CREATE, map_to_create())},
                {"open-a-pin", bpf(BPF_OBJ_GET, object_at(pin))},
                {"make-a-pin-elsewhere", bpf(BPF_OBJ_PIN, object_at(options.bpffs + "/mine", map))},
                {"open-a-map-by-id", bpf(BPF_MAP_GET_FD_BY_ID, by_id())},
                {"open-a-program-by-id", bpf(BPF_PROG_GET_FD_BY_ID, by_id())},
                {"update-a-link", bpf(BPF_LINK_UPDATE, {})},
                {"io_uring", call(SYS_io_uring_setup, 1, nullptr)},
                {"perf-event", call(SYS_perf_event_open, nullptr, 0, -1, -1, 0)},
                {"userfaultfd", call(SYS_userfaultfd, 0)},
                {"keyring", call(SYS_keyctl, 0, -3, 0)},
                {"set-the-clock", call(SYS_clock_settime, 0, nullptr)},
                // Files
                {"read-shadow", open_file("/etc/shadow", O_RDONLY)},
                {"read-roots-home", open_file("/root", O_RDONLY | O_DIRECTORY)},
                {"list-homes", open_file("/home", O_RDONLY | O_DIRECTORY)},
                {"read-var", open_file("/var/log", O_RDONLY | O_DIRECTORY)},
                {"read-devices", open_file("/dev/urandom", O_RDONLY)},
                {"read-opt", open_file("/opt", O_RDONLY | O_DIRECTORY)},
                {"write-tmp", open_file("/tmp/mine", kNewFile)},
                {"write-run", open_file("/run/mine", kNewFile)},
                {"write-a-policy", open_file(options.config_dirs.front() + "/conf.d/00-mine.conf", kNewFile)},
                {"write-etc", open_file("/etc/mine", kNewFile)},
                {"write-shm", open_file("/dev/shm/mine", kNewFile)},
                {"write-own-code", open_file("/proc/self/mem", kNewFile)},
                {"write-a-sysctl", open_file("/proc/sys/net/ipv4/ip_forward", kNewFile)},
                {"overwrite", open_file("/proc/self/mem", O_WRONLY)},
                {"append", open_file("/tmp/mine", O_RDWR | O_APPEND)},
                {"make-a-folder", call(SYS_mkdir, "/tmp/mine", 0700)},
                {"make-a-link", call(SYS_symlink, "/etc/shadow", (options.state_dir + "/mine").c_str())},
                {"make-a-socket-file", [=] { return make_socket(options.state_dir + "/socket"); }},
                {"chmod-a-pin", [=] { return chmod(pin.c_str(), 0666); }},
                {"chown-a-pin", [=] { return chown(pin.c_str(), 0, 0); }},
                {"remove-a-socket-of-the-broker", [=] { return unlink((options.runtime_dir + "/control").c_str()); }},
                {"move-a-pin-out", [=, &options] { return rename(pin.c_str(), (options.bpffs + "/mine").c_str()); }},
                // The network
                {"tcp-socket", call(SYS_socket, AF_INET, SOCK_STREAM, 0)},
                {"udp-socket", call(SYS_socket, AF_INET6, SOCK_DGRAM, 0)},
                {"raw-socket", call(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP)},
                {"packet-socket", call(SYS_socket, AF_PACKET, SOCK_RAW, 0)},
                {"netfilter", call(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)},
                {"transparent", call(SYS_setsockopt, 3, SOL_IP, IP_TRANSPARENT, page, 4)},
                {"mark", call(SYS_setsockopt, 3, SOL_SOCKET, SO_MARK, page, 4)},
                {"listen", call(SYS_listen, 3, 1)},
                {"interface-down", call(SYS_ioctl, 3, 0x8914, page)},
                {"abstract-socket", [] { return connect_to(std::string("\0sockbroker-victim", 18), SOCK_STREAM); }},
                // Other processes
                {"kill", call(SYS_kill, victim, SIGKILL)},
                {"tgkill", call(SYS_tgkill, victim, victim, SIGKILL)},
                {"kill-by-pidfd",
                 [=] { return syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, victim, 0), SIGKILL, 0, 0); }},
                {"take-a-descriptor",
                 [=] { return syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, victim, 0), 0, 0); }},
                {"read-its-memory", open_file("/proc/" + std::to_string(victim) + "/mem", O_RDONLY)},
                {"fork", call(SYS_clone, SIGCHLD, 0, 0, 0, 0)},
                {"vfork", call(SYS_fork)},
                {"clone3", call(SYS_clone3, nullptr, 0)},
                // Namespaces and mounts
                {"user-namespace", call(SYS_unshare, CLONE_NEWUSER)},
                {"clone-into-user-namespace", call(SYS_clone, SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0)},
                {"enter-a-namespace", call(SYS_setns, 3, 0)},
                {"mount", call(SYS_mount, "none", "/tmp", "tmpfs", 0, nullptr)},
                {"chroot", call(SYS_chroot, "/tmp")},
                // Privilege
                {"capset-cap-bpf", raise_capability},
                {"ambient-cap-bpf", call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_BPF, 0, 0)},
                {"securebits", call(SYS_prctl, PR_SET_SECUREBITS, 0, 0, 0, 0)},
                {"become-root", call(SYS_setresuid, 0, 0, 0)},
                {"another-filter", call(SYS_seccomp, 1, 0, nullptr)},
                {"core-and-ptrace", call(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)},
                // Code
                {"map-executable",
                 [] {
                         return mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                                     0) == MAP_FAILED
                                        ? -1L
                                        : 0L;
                 }},
                {"make-executable", [=] { return execute(page); }},
                {"map-a-file-executable", map_memfd},
                {"pkey", call(SYS_pkey_mprotect, page, 4096, PROT_EXEC, 0)},
                // What it can still do. See docs/security.md.
                {"can-read-accounts", open_file("/etc/passwd", O_RDONLY)},
                {"can-read-processes", open_file("/proc/" + std::to_string(victim) + "/stat", O_RDONLY)},
                {"can-write-its-state", open_file(options.state_dir + "/policy.mine", kNewFile)},
                {"can-write-maps", write_map},
                {"add-a-route", add_route},
                {"can-end-dispatch", [=] { return unlink((options.pin_dir() + "/program").c_str()); }},
        };
        const std::vector<Attempt> deadly{
                {"exec", call(SYS_execve, "/bin/sh", nothing, nothing)},
                {"execveat", call(SYS_execveat, -1, "/bin/sh", nothing, nothing, 0)},
                {"ptrace", call(SYS_ptrace, 16, victim, 0, 0)},
                {"read-memory", call(SYS_process_vm_readv, victim, nullptr, 0, nullptr, 0, 0)},
                {"write-memory", call(SYS_process_vm_writev, victim, nullptr, 0, nullptr, 0, 0)},
                {"load-a-module", call(SYS_finit_module, 3, "", 0)},
                {"another-kernel", call(SYS_kexec_load, 0, 0, nullptr, 0)},
                {"foreign-architecture", call(SYS_getpid | 0x40000000)},
        };
        const std::string chosen = environment("SOCKBROKER_TAKEOVER", "");
        for (const Attempt& one : deadly) {
                if (one.name == chosen) {
                        return {one};
                }
        }
        return all;
}

}  // namespace

void act_as_if_taken_over(const DaemonOptions& options) {
        for (const Attempt& attempt : attempts(options)) {
                errno = 0;
                const long result = attempt.run();
                const int error = result == -1 ? errno : 0;
                dprintf(STDERR_FILENO, "takeover %s %d\n", attempt.name.c_str(), error);
        }
        dprintf(STDERR_FILENO, "takeover end 0\n");
}

}  // namespace sockbroker
