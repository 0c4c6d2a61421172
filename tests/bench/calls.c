// SPDX-License-Identifier: LGPL-2.1-or-later
//
// calls [--any-filter]: what system calls cost. A line on standard input is answered with the nanoseconds of one.
// getppid, recv: which every profile allows whatever the arguments; fcntl: whose arguments profiles look at. By the CPU
// time of this thread, the median of 200 times 1000 calls, so that what else runs does not count.
// bind, listen: socket, bind to 0.0.0.0:8080 and close, and the same with listen, by the clock, for others work for
// them.
// --any-filter: under a seccomp filter of one instruction, which allows everything: what having any filter costs.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CHUNKS = 200, CHUNK = 1000, BINDS = 300 };

static int datagrams; /* a socket to ask things of */

static double now(clockid_t clock) {
        struct timespec t;
        clock_gettime(clock, &t);
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

static void one(char call) {
        char byte;
        if (call == 'g')
                syscall(SYS_getppid);
        else if (call == 'r')
                recv(datagrams, &byte, 1, MSG_DONTWAIT);
        else
                fcntl(datagrams, F_GETFL);
}

static int smaller(const void* a, const void* b) {
        const double x = *(const double*)a, y = *(const double*)b;
        return (x > y) - (x < y);
}

static double quick(char call) {
        static double taken[CHUNKS];
        for (int i = 0; i < CHUNKS; i++) {
                const double began = now(CLOCK_THREAD_CPUTIME_ID);
                for (int k = 0; k < CHUNK; k++)
                        one(call);
                taken[i] = (now(CLOCK_THREAD_CPUTIME_ID) - began) / CHUNK;
        }
        qsort(taken, CHUNKS, sizeof taken[0], smaller);
        return taken[CHUNKS / 2];
}

static double slow(int to_listen) {
        const double began = now(CLOCK_MONOTONIC);
        for (int i = 0; i < BINDS; i++)
                if (!open_one(to_listen))
                        exit(1);
        return (now(CLOCK_MONOTONIC) - began) / BINDS;
}

static int allow_everything(void) {
        struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {1, allow};
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

int main(int count, char** words) {
        char line[32];
        if (count == 2 && strcmp(words[1], "--any-filter") == 0 && !allow_everything()) {
                perror("calls: seccomp");
                return 1;
        }
        datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        while (fgets(line, sizeof line, stdin) != NULL) {
                const int binds = strcmp(line, "bind\n") == 0, listens = strcmp(line, "listen\n") == 0;
                printf("%.1f\n", binds || listens ? slow(listens) : quick(line[0]));
                fflush(stdout);
        }
        return 0;
}
