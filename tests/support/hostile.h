// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Descriptors whose mere touch makes a process sleep for as long as their maker likes, beyond SIGKILL. Each is made in
// a process of its own, which must not close what it made before the attack ends.
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/protocol/message.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::test {

// A file system with one file. Its pages never come; with `flushes` false nobody who closes the file comes back. In a
// mount namespace of the caller's own, who is root still; `owner` may end it.
class SilentFile {
public:
        explicit SilentFile(uid_t owner, bool flushes = true) {
                must(unshare(CLONE_NEWNS), "unshare");
                must(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "private mounts");
                must(mount("tmpfs", "/mnt", "tmpfs", 0, nullptr), "tmpfs");
                must(mknod("/mnt/fuse", S_IFCHR | 0600, makedev(10, 229)), "mknod");
                must(mkdir("/mnt/silent", 0755), "mkdir");
                const int device = open("/mnt/fuse", O_RDWR | O_CLOEXEC);
                must(device, "open /dev/fuse");
                const auto options = "fd=" + std::to_string(device) + ",rootmode=40000,user_id=0,group_id=0";
                must(mount("silent", "/mnt/silent", "fuse", 0, options.c_str()), "mount fuse");
                server_ = fork();
                if (server_ == 0) {
                        must(setresuid(owner, owner, owner), "setresuid");
                        serve(device, flushes);
                }
                close(device);
                file_ = open("/mnt/silent/f", O_RDONLY | O_CLOEXEC);
                must(file_, "open the silent file");
        }

        [[nodiscard]] int file() const { return file_; }  // never closed here
        [[nodiscard]] void* page() const {
                void* const page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, file_, 0);
                must(page == MAP_FAILED ? -1 : 0, "mmap");
                return page;
        }
        // All who wait go on.
        void end() const {
                kill(server_, SIGKILL);
                waitpid(server_, nullptr, 0);
        }

private:
        [[noreturn]] static void serve(int device, bool flushes) {
                std::vector<char> request(1 << 18);
                while (true) {
                        const ssize_t size = read(device, request.data(), request.size());
                        if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) {
                                _exit(0);
                        }
                        fuse_in_header in;
                        std::memcpy(&in, request.data(), sizeof in);
                        const auto answer = [&](const void* body, std::size_t bytes, int error = 0) {
                                fuse_out_header out{static_cast<std::uint32_t>(sizeof out + bytes), error, in.unique};
                                std::vector<char> whole(sizeof out + bytes);
                                std::memcpy(whole.data(), &out, sizeof out);
                                if (bytes != 0) {
                                        std::memcpy(whole.data() + sizeof out, body, bytes);
                                }
                                (void)!write(device, whole.data(), whole.size());
                        };
                        const auto attributes = [](std::uint64_t node) {
                                return fuse_attr{.ino = node,
                                                 .size = 4096,
                                                 .blocks = 8,
                                                 .mode = node == 1 ? 040755U : 0100644U,
                                                 .nlink = 1,
                                                 .blksize = 4096};
                        };
                        switch (in.opcode) {
                        case FUSE_INIT: {
                                const fuse_init_out out{.major = 7,
                                                        .minor = 31,
                                                        .max_background = 12,
                                                        .congestion_threshold = 9,
                                                        .max_write = 65536};
                                answer(&out, sizeof out);
                                break;
                        }
                        case FUSE_LOOKUP: {
                                const fuse_entry_out out{
                                        .nodeid = 2, .entry_valid = 3600, .attr_valid = 3600, .attr = attributes(2)};
                                answer(&out, sizeof out);
                                break;
                        }
                        case FUSE_GETATTR: {
                                const fuse_attr_out out{.attr_valid = 3600, .attr = attributes(in.nodeid)};
                                answer(&out, sizeof out);
                                break;
                        }
                        case FUSE_OPEN:
                        case FUSE_OPENDIR: {
                                const fuse_open_out out{.fh = 1};
                                answer(&out, sizeof out);
                                break;
                        }
                        case FUSE_READ:
                        case FUSE_FORGET:
                        case FUSE_BATCH_FORGET:
                        case FUSE_INTERRUPT:
                                break;
                        case FUSE_FLUSH:
                                if (flushes) {
                                        answer(nullptr, 0);
                                }
                                break;
                        case FUSE_RELEASE:
                        case FUSE_RELEASEDIR:
                                answer(nullptr, 0);
                                break;
                        default:
                                answer(nullptr, 0, -ENOSYS);
                        }
                }
        }

        pid_t server_ = -1;
        int file_ = -1;
};

// Until a process waits for the page of a silent file: a kernel function of such a name is where it sleeps.
inline void wait_for_sleep(pid_t pid) {
        for (int i = 0; i < 5000; i++) {
                char name[128] = {};
                const int fd = open(("/proc/" + std::to_string(pid) + "/wchan").c_str(), O_RDONLY | O_CLOEXEC);
                (void)!read(fd, name, sizeof name - 1);
                close(fd);
                if (std::string(name).find("wait") != std::string::npos) {
                        return;
                }
                usleep(1000);
        }
        throw std::runtime_error("a process does not come to sleep over a page that never comes");
}

// A pipe whose mutex is kept by a write(2) from the page: the read end.
inline int stuck_pipe(void* page) {
        int ends[2];
        must(pipe2(ends, O_CLOEXEC), "pipe");
        const pid_t writer = fork();
        if (writer == 0) {
                close(ends[0]);
                (void)!write(ends[1], page, 4096);
                _exit(0);
        }
        close(ends[1]);
        wait_for_sleep(writer);
        return ends[0];
}

// A bound UDP socket whose lock is kept by a corked sendmsg(2) from the page.
inline int stuck_udp(void* page) {
        const int fd = udp_bound().release();
        connect_to(fd, fd);
        (void)!send(fd, "x", 1, MSG_MORE);
        const pid_t sender = fork();
        if (sender == 0) {
                (void)!send(fd, page, 4096, MSG_MORE);
                _exit(0);
        }
        wait_for_sleep(sender);
        return fd;
}

// A UNIX socket in whose queue lies a TCP connection that lingers for an hour, with data that nobody reads.
struct Lingering {
        int socket = -1;
        std::vector<OwnedFd> kept;  // the other end
};
inline Lingering lingering() {
        Lingering made;
        auto server = listener();
        auto client = inet_socket(AF_INET, SOCK_STREAM);
        connect_to(client.get(), server.get());
        auto reader = test::made(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept");
        const std::vector<char> data(65536);
        while (send(client.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
        }
        const linger hour{.l_onoff = 1, .l_linger = 3600};
        must(setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &hour, sizeof hour), "SO_LINGER");
        int pair[2];
        must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
        const auto sent = send_record(pair[0], "x", {client.get()});
        must(sent ? 0 : -1, "send");
        close(client.release());
        close(pair[0]);
        made.socket = pair[1];
        made.kept.push_back(std::move(server));
        made.kept.push_back(std::move(reader));
        return made;
}

// A listener with as many connections that nobody accepts.
inline OwnedFd crowded_listener(int connections) {
        auto fd = inet_socket(AF_INET, SOCK_STREAM);
        bind_to(fd.get(), AF_INET, "127.0.0.1");
        must(listen(fd.get(), connections), "listen");
        for (int i = 0; i < connections; i++) {
                const auto client = inet_socket(AF_INET, SOCK_STREAM);
                connect_to(client.get(), fd.get());
        }
        return fd;
}

}  // namespace sockbroker::test
