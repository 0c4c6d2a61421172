// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What system calls cost. A line on standard input (getppid, bind, listen) is answered with the nanoseconds of one: of
// a call that no filter looks at closely, of socket, bind to 0.0.0.0:8080 and close, and of the same with listen.
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int open_one(int to_listen) {
        const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8080)};
        const int on = 1;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int done = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                   bind(fd, (const struct sockaddr*)&any, sizeof any) == 0 && (!to_listen || listen(fd, 16) == 0);
        if (!done)
                perror("calls");
        close(fd);
        return done;
}

int main(void) {
        char line[32];
        while (fgets(line, sizeof line, stdin) != NULL) {
                const int plain = strcmp(line, "getppid\n") == 0, to_listen = strcmp(line, "listen\n") == 0;
                const int times = plain ? 1000000 : 300;
                const double began = now();
                for (int i = 0; i < times; i++) {
                        if (plain)
                                syscall(SYS_getppid);
                        else if (!open_one(to_listen))
                                return 1;
                }
                printf("%.1f\n", (now() - began) / times);
                fflush(stdout);
        }
        return 0;
}
