// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Ends the process between any two changes of what outlives it, for tests: preloaded into the real sockbrokerd, or
// linked into a test. A change is a system call (bpf(2), rename(2), open(2) for writing ...) or a plain store into a
// pinned map: those are mapped read-only here, so that each store faults and is counted before it is carried out by
// itself. Between two changes nothing that outlives the process differs, so a kill before each is a kill at every
// instruction. Stores into the half of the rule memory that no program reads count once, and so do updates of maps that
// nothing pins yet. The calls of the C library that are replaced for this are in fault_calls.cc.
//
// With SOCKBROKER_FAULT_PROCESS= it ends a process of that name (/proc/PID/comm) instead: before each call by which it
// speaks with others or has to do with descriptors. Its filter is in force: nothing here makes a call that it may not
// make.
#include "tests/support/fault_points.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "tests/support/fault_calls.h"

#ifndef __x86_64__
#error "single steps over stores are written for x86-64"
#endif

namespace sockbroker::faults {

FaultPoints* shared = nullptr;

namespace {

constexpr std::size_t kNameBytes = 16;  // TASK_COMM_LEN

long owner = 0;  // the broker; 0: any process. Helpers that it forks change nothing that outlives them
std::array<char, kNameBytes> process{};  // of this name, whoever the owner is; empty: of none
std::array<char, kNameBytes> own_name{};

bool is_concerned() {
        return process[0] != 0 ? own_name == process : owner == 0 || raw(SYS_getpid) == owner;
}

}  // namespace

bool counts_calls() {
        return process[0] != 0;
}

void note_name(const char* name) {
        own_name = {};
        strncpy(own_name.data(), name, own_name.size() - 1);
}

void point_of_call(const char* what) {
        if (counts_calls()) {
                point(what, "a call");
        }
}

void point(const char* what, const char* on) {
        if (shared == nullptr || !__atomic_load_n(&shared->armed, __ATOMIC_SEQ_CST) || !is_concerned()) {
                return;
        }
        const std::uint32_t number = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
        if (number < shared->names.size()) {
                snprintf(shared->names[number].data(), shared->names[number].size(), "%s %s", what, on);
        }
        if (number == shared->kill_at) {
                if (__atomic_load_n(&shared->waits, __ATOMIC_SEQ_CST) != 0) {
                        while (__atomic_load_n(&shared->waits, __ATOMIC_SEQ_CST) != 0) {
                        }  // whatever it may call
                        return;
                }
                if (!counts_calls()) {
                        raw(SYS_kill, raw(SYS_getpid), SIGKILL);
                }
                raw(SYS_exit_group, 137);  // for others it looks the same
        }
}

void point_once(const char* what, const char* on) {
        const std::uint32_t last = shared == nullptr ? 0 : __atomic_load_n(&shared->count, __ATOMIC_SEQ_CST);
        std::array<char, 48> text{};
        snprintf(text.data(), text.size(), "%s %s", what, on);
        if (last == 0 || last >= shared->names.size() || shared->names[last] != text) {
                point(what, on);
        }
}

const char* base_name(const char* path) {
        const char* slash = strrchr(path, '/');
        return slash == nullptr ? path : slash + 1;
}

// Maps in this process's memory.

namespace {

constexpr std::uintptr_t kPage = 4096;
constexpr long long kTrapFlag = 0x100;

struct Range {
        std::uintptr_t begin = 0;
        std::uintptr_t end = 0;  // 0: free
        bool coarse = false;
        std::array<char, 16> name{};
};
std::array<Range, 16> ranges;
thread_local Range* stepping __attribute__((tls_model("initial-exec"))) = nullptr;

void protect(std::uintptr_t begin, std::uintptr_t end, int how) {
        raw(SYS_mprotect, static_cast<long>(begin), static_cast<long>(end - begin), how);
}

void on_fault(int, siginfo_t* info, void* context) {
        const auto where = reinterpret_cast<std::uintptr_t>(info->si_addr);
        for (Range& range : ranges) {
                if (where < range.begin || where >= range.end) {
                        continue;
                }
                if (range.coarse) {
                        point("store", range.name.data());
                        protect(range.begin, range.end, PROT_READ | PROT_WRITE);
                } else {
                        std::array<char, 64> text{};
                        snprintf(text.data(), text.size(), "%s+%zu", range.name.data(), where - range.begin);
                        point("store", text.data());
                        stepping = &range;
                        protect(range.begin, range.end, PROT_READ | PROT_WRITE);
                        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
                }
                return;
        }
        signal(SIGSEGV, SIG_DFL);  // a fault of the program's own: it comes again
}

void on_step(int, siginfo_t*, void* context) {
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
        if (Range* range = stepping; range != nullptr) {
                stepping = nullptr;
                protect(range->begin, range->end, PROT_READ);
        }
}

}  // namespace

bpf_map_info map_info(int fd) {
        bpf_map_info info{};
        bpf_attr attribute{};
        attribute.info.bpf_fd = static_cast<std::uint32_t>(fd);
        attribute.info.info_len = sizeof info;
        attribute.info.info = reinterpret_cast<std::uintptr_t>(&info);
        if (raw(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, address(&attribute), sizeof attribute) != 0) {
                info = {};
        }
        return info;
}

void* map_memory(void* hint, std::size_t length, int how, int flags, int fd, off_t offset) {
        const long result = raw(SYS_mmap, address(hint), static_cast<long>(length), how, flags, fd, offset);
        if (shared == nullptr || counts_calls() || fd < 0 || result < 0 || (how & PROT_WRITE) == 0 ||
            (flags & MAP_SHARED) == 0) {
                return reinterpret_cast<void*>(checked(result));
        }
        const auto info = map_info(fd);
        for (Range& range : ranges) {
                if (info.id != 0 && range.end == 0) {
                        std::memcpy(range.name.data(), info.name, range.name.size() - 1);
                        const std::string_view name = range.name.data();
                        range.coarse = name == "arena" || name == "tables";
                        range.begin = static_cast<std::uintptr_t>(result);
                        range.end = range.begin + (length + kPage - 1) / kPage * kPage;
                        protect(range.begin, range.end, PROT_READ);
                        break;
                }
        }
        return reinterpret_cast<void*>(result);
}

void forget_memory(std::uintptr_t begin, std::size_t length) {
        for (Range& range : ranges) {  // a large map is mapped in pieces
                if (range.end != 0 && range.begin >= begin && range.begin < begin + length) {
                        range = {};
                }
        }
}

// bpf(2).

namespace {

std::array<std::uint32_t, 64> fresh{};  // ids of maps that nothing pins yet

}  // namespace

void note_fresh(std::uint32_t id, bool is_fresh) {
        for (auto& one : fresh) {
                if (one == (is_fresh ? 0 : id)) {
                        one = is_fresh ? id : 0;
                        return;
                }
        }
}

namespace {

void change_of_map(const char* what, const bpf_attr& attribute) {
        const int fd = static_cast<int>(attribute.map_fd);
        const auto info = map_info(fd);
        if (std::string_view(info.name).starts_with("sb_grace")) {
                return;
        }
        if (std::ranges::find(fresh, info.id) != fresh.end()) {
                return point_once("update", "new maps");
        }
        if (std::string_view(what) == "delete") {
                bpf_attr question{};
                std::array<std::uint64_t, 64> value{};
                question.map_fd = attribute.map_fd;
                question.key = attribute.key;
                question.value = reinterpret_cast<std::uintptr_t>(value.data());
                if (raw(SYS_bpf, BPF_MAP_LOOKUP_ELEM, address(&question), sizeof question) != 0) {
                        return;  // there is nothing
                }
        }
        point(what, info.name);
}

bool copies_sockets(int program) {
        bpf_prog_info info{};
        bpf_attr attribute{};
        attribute.info.bpf_fd = static_cast<std::uint32_t>(program);
        attribute.info.info_len = sizeof info;
        attribute.info.info = reinterpret_cast<std::uintptr_t>(&info);
        return raw(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, address(&attribute), sizeof attribute) == 0 &&
               std::string_view(info.name) == "copy";
}

}  // namespace

void before_bpf(long command, const bpf_attr& attribute) {
        switch (command) {
        case BPF_MAP_UPDATE_ELEM:
                return change_of_map("update", attribute);
        case BPF_MAP_DELETE_ELEM:
                return change_of_map("delete", attribute);
        case BPF_OBJ_PIN:
                point("pin", base_name(reinterpret_cast<const char*>(attribute.pathname)));
                return note_fresh(map_info(static_cast<int>(attribute.bpf_fd)).id, false);
        case BPF_LINK_CREATE:
                return point("link", "create");
        case BPF_LINK_UPDATE:
                return point("link", "update");
        case BPF_LINK_DETACH:
                return point("link", "detach");
        case BPF_PROG_TEST_RUN:
                if (copies_sockets(static_cast<int>(attribute.test.prog_fd))) {
                        point_once("update", "new maps");
                }
                return;
        default:
                return;
        }
}

namespace {

void start() {
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO | SA_NODEFER;
        action.sa_sigaction = on_fault;
        sigaction(SIGSEGV, &action, nullptr);
        action.sa_sigaction = on_step;
        sigaction(SIGTRAP, &action, nullptr);
}

// Where the test says: a file of sizeof(FaultPoints) bytes.
__attribute__((constructor)) void start_from_environment() {
        const char* path = getenv("SOCKBROKER_FAULT_POINTS");
        if (path == nullptr) {
                return;
        }
        const long fd = raw(SYS_openat, AT_FDCWD, address(path), O_RDWR | O_CLOEXEC);
        const long memory = raw(SYS_mmap, 0, sizeof(FaultPoints), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || memory < 0) {
                std::abort();
        }
        raw(SYS_close, fd);
        shared = reinterpret_cast<FaultPoints*>(memory);
        owner = raw(SYS_getpid);
        if (const char* name = getenv("SOCKBROKER_FAULT_PROCESS"); name != nullptr) {
                strncpy(process.data(), name, process.size() - 1);
                raw(SYS_prctl, PR_GET_NAME, address(own_name.data()));
        } else {
                start();
        }
}

}  // namespace
}  // namespace sockbroker::faults

namespace sockbroker {

FaultPoints& FaultPoints::here() {
        using namespace faults;
        if (shared == nullptr) {
                const long memory = raw(SYS_mmap, 0, sizeof(FaultPoints), PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                if (memory < 0) {
                        std::abort();
                }
                shared = reinterpret_cast<FaultPoints*>(memory);
                start();
        }
        return *shared;
}

}  // namespace sockbroker
