// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Around a crew: peers that are processes of their own, what they say and hear, and which processes there are.
#pragma once

#include <dirent.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/protocol/message.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::hands {

// Of no other run of these tests on this machine: the kernel counts what is on its way for each user over all
// namespaces. (UIDS-GIDS of systemd: nobody gives these out.)
inline const uid_t kHostile = 1'880'000'000 + static_cast<uid_t>(getpid()) % 19'000'000;

// Processes of this one's, whatever they do: (pid, name, state).
struct Process {
        pid_t pid = 0;
        std::string name;
        char state = 0;
};

inline std::vector<Process> children_of(pid_t parent) {
        std::vector<Process> found;
        const std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), &closedir);
        while (const dirent* entry = readdir(proc.get())) {
                const pid_t pid = std::atoi(entry->d_name);
                std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
                std::string line;
                if (pid == 0 || !std::getline(file, line)) {
                        continue;
                }
                const auto open = line.find('(');
                const auto close = line.rfind(')');
                char state = 0;
                int its_parent = 0;
                if (std::sscanf(line.c_str() + close + 1, " %c %d", &state, &its_parent) == 2 && its_parent == parent) {
                        found.push_back({pid, line.substr(open + 1, close - open - 1), state});
                }
        }
        return found;
}

inline OwnedFd unix_socket(const std::string& path, int type, bool listens) {
        auto fd = test::made(socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket");
        sockaddr_un address{.sun_family = AF_UNIX};
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        const auto* name = reinterpret_cast<const sockaddr*>(&address);
        if (listens) {
                unlink(path.c_str());
                test::must(bind(fd.get(), name, sizeof address), "bind");
                chmod(path.c_str(), 0666);
                if (type == SOCK_SEQPACKET) {
                        // Short: who floods then waits in connect(2), in turns with all others, and not before them in
                        // the queue.
                        test::must(listen(fd.get(), 64), "listen");
                }
        } else {
                test::must(connect(fd.get(), name, sizeof address), "connect");
        }
        return fd;
}

// A process of an ordinary user, with these descriptors and none of the core's; what `body` throws is its failure.
inline pid_t spawn(uid_t uid, std::vector<int> keep, const std::function<int()>& body) {
        const pid_t child = fork();
        if (child == 0) {
                int status = 99;
                try {
                        std::ranges::sort(keep);
                        int next = 3;
                        for (const int fd : keep) {
                                if (fd > next) {
                                        close_range(static_cast<unsigned>(next), static_cast<unsigned>(fd - 1), 0);
                                }
                                next = fd + 1;
                        }
                        close_range(static_cast<unsigned>(next), ~0U, 0);
                        test::must(setresgid(uid, uid, uid), "setresgid");
                        test::must(setresuid(uid, uid, uid), "setresuid");
                        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
                        status = body();
                } catch (const std::exception& error) {
                        (void)dprintf(2, "child: %s\n", error.what());
                }
                _exit(status);
        }
        return child;
}

// The next record; empty: the end.
inline std::string next_record(int fd) {
        char text[8192];
        const ssize_t size = recv(fd, text, sizeof text, 0);
        return {text, size > 0 ? static_cast<std::size_t>(size) : 0};
}

inline std::string ask(int fd, const std::string& text, const std::vector<int>& fds = {}) {
        const auto sent = send_record(fd, text, fds);
        return sent ? next_record(fd) : sent.error().text();
}

}  // namespace sockbroker::hands
