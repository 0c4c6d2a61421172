// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/helper/helper.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>

#include <fmt/format.h>

#include "broker/base/capabilities.h"

namespace sockbroker {

namespace {

constexpr int kHelperSocket = 3;

// All but standard output and error, and the one socket, which becomes descriptor 3.
bool keep_only(int socket) {
        const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return null >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
               (socket == kHelperSocket || dup3(socket, kHelperSocket, O_CLOEXEC) >= 0) &&
               close_range(kHelperSocket + 1, ~0U, 0) == 0;
}

[[noreturn]] void be_helper(const char* name, const HelperMain& main, int socket, pid_t broker) {
        for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
                std::signal(signal, SIG_IGN);
        }
        std::signal(SIGCHLD, SIG_DFL);
        prctl(PR_SET_NAME, name, 0, 0, 0);
        if (!keep_only(socket) || !keep_capabilities({})) {
                _exit(EXIT_FAILURE);
        }
        // After the capabilities: the kernel forgets it where credentials change.
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != broker) {
                _exit(EXIT_FAILURE);
        }
        main(OwnedFd(kHelperSocket));
        _exit(EXIT_SUCCESS);
}

}  // namespace

Result<OwnedFd> start_helper(const char* name, const HelperMain& main) {
        std::array<int, 2> pair{-1, -1};
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
                return fail_errno(fmt::format("cannot make a socket pair for the process \"{}\"", name));
        }
        OwnedFd ours(pair[0]);
        const OwnedFd theirs(pair[1]);
        const pid_t broker = getpid();
        const pid_t child = fork();
        if (child == 0) {
                be_helper(name, main, theirs.get(), broker);
        }
        if (child < 0) {
                return fail_errno(fmt::format("cannot start the process \"{}\"; raise TasksMax=", name));
        }
        if (fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) {
                return fail_errno(fmt::format("cannot use the socket of the process \"{}\"", name));
        }
        return ours;
}

}  // namespace sockbroker
