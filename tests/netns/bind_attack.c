/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_supervise_hostile.py: a program that tries to get a socket bound where its supervisor would not have it, or
 * to make it fail. Each mode prints one line: what was bound, refused, and, which must be 0, escaped or lost.
 *
 *   bind_attack race N     another thread rewrites the address while bind(2) is asked
 *   bind_attack swap N     another thread puts another socket under the descriptor meanwhile
 *   bind_attack v6only N   another thread clears IPV6_V6ONLY while a v4-mapped address is asked
 *   bind_attack signals N  a signal every 50 microseconds
 *   bind_attack hard N     the same, handled without SA_RESTART
 *   bind_attack storm N    eight processes of four threads each
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_int stop;
static volatile struct sockaddr_in address;
static long bound, refused, escaped, lost;

static struct sockaddr_in at(const char* text, int port) {
        struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, text, &made.sin_addr);
        return made;
}

/* Bound to something that is no loopback address. */
static int is_out(int fd) {
        struct sockaddr_storage name = {0};
        socklen_t size = sizeof name;
        if (getsockname(fd, (struct sockaddr*)&name, &size) != 0)
                return 0;
        if (name.ss_family == AF_INET) {
                const struct sockaddr_in* in = (const struct sockaddr_in*)&name;
                return in->sin_port != 0 && (ntohl(in->sin_addr.s_addr) >> 24) != 127;
        }
        if (name.ss_family == AF_INET6) {
                const struct sockaddr_in6* in = (const struct sockaddr_in6*)&name;
                return in->sin6_port != 0 && IN6_IS_ADDR_V4MAPPED(&in->sin6_addr) && in->sin6_addr.s6_addr[12] != 127;
        }
        return 0;
}

static void* rewrite(void* unused) {
        (void)unused;
        const struct sockaddr_in good = at("0.0.0.0", 8080);
        const struct sockaddr_in bad = at("0.0.0.0", 8081);
        const struct sockaddr_in near = at("127.0.0.1", 8081);
        for (unsigned i = 0; !stop; i++) {
                const struct sockaddr_in* one = i % 3 == 0 ? &good : i % 3 == 1 ? &bad : &near;
                address.sin_port = one->sin_port;
                address.sin_addr.s_addr = one->sin_addr.s_addr;
        }
        return NULL;
}

static void count(int result, int fd) {
        if (result == 0)
                bound++;
        else if (errno == EACCES || errno == EADDRINUSE || errno == EINVAL)
                refused++;
        else
                lost++;
        escaped += is_out(fd);
}

static void race(long times) {
        pthread_t thread;
        address = at("0.0.0.0", 8080);
        pthread_create(&thread, NULL, rewrite, NULL);
        for (long i = 0; i < times; i++) {
                int fd = socket(AF_INET, i % 2 ? SOCK_DGRAM : SOCK_STREAM, 0);
                count(bind(fd, (const struct sockaddr*)&address, sizeof address), fd);
                close(fd);
        }
        stop = 1;
        pthread_join(thread, NULL);
}

static int target, sockets[3];

static void* swap(void* unused) {
        (void)unused;
        for (unsigned i = 0; !stop; i++)
                dup2(sockets[i % 3], target);
        return NULL;
}

static void swap_race(long times) {
        target = fcntl(0, F_DUPFD, 50);
        const struct sockaddr_in asked = at("0.0.0.0", 8080);
        for (long i = 0; i < times; i++) {
                pthread_t thread;
                stop = 0;
                sockets[0] = socket(AF_INET, SOCK_STREAM, 0);
                sockets[1] = socket(AF_UNIX, SOCK_STREAM, 0);
                sockets[2] = socket(AF_INET, SOCK_DGRAM, 0);
                dup2(sockets[0], target);
                pthread_create(&thread, NULL, swap, NULL);
                for (int j = 0; j < 20; j++) {
                        if (bind(target, (const struct sockaddr*)&asked, sizeof asked) == 0)
                                bound++;
                        else
                                refused++;
                        listen(target, 1);
                }
                stop = 1;
                pthread_join(thread, NULL);
                for (int j = 0; j < 3; j++) {
                        escaped += is_out(sockets[j]);
                        close(sockets[j]);
                }
        }
}

static atomic_int to_clear = -1, delay, runs;

static long now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void* clear_v6only(void* unused) {
        (void)unused;
        const int off = 0;
        while (!stop) {
                const int fd = to_clear;
                if (fd < 0)
                        continue;
                runs = 1;
                for (const long until = now() + delay; now() < until;)
                        ;
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
                to_clear = -1;
        }
        return NULL;
}

/* 8080 is granted, 8081 is not; with IPV6_V6ONLY the kernel takes neither at such an address. */
static void v6only_race(long times) {
        pthread_t thread;
        const int on = 1;
        int about = 20000; /* nanoseconds */
        pthread_create(&thread, NULL, clear_v6only, NULL);
        for (long i = 0; i < times; i++) {
                struct sockaddr_in6 asked = {.sin6_family = AF_INET6, .sin6_port = htons(i % 4 < 2 ? 8081 : 8080)};
                inet_pton(AF_INET6, "::ffff:0.0.0.0", &asked.sin6_addr);
                int fd = socket(AF_INET6, i % 2 ? SOCK_DGRAM : SOCK_STREAM, 0);
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
                delay = about + (int)(i * 7919 % 4000);
                runs = 0;
                to_clear = fd;
                while (!runs)
                        sched_yield();
                const int result = bind(fd, (const struct sockaddr*)&asked, sizeof asked);
                /* The supervisor's look is to be met, however long it takes to come to it. */
                about += result != 0 && errno == EINVAL ? -about / 8 : 500 + about / 8;
                count(result, fd);
                while (to_clear >= 0)
                        sched_yield();
                close(fd);
        }
        stop = 1;
        pthread_join(thread, NULL);
}

static void on_signal(int number) {
        (void)number;
}

static void signals(long times, int flags) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
        const struct itimerval timer = {{0, 50}, {0, 50}};
        const struct itimerval none = {{0, 0}, {0, 0}};
        const struct sockaddr_in asked = at("0.0.0.0", 8080);
        sigaction(SIGALRM, &action, NULL);
        for (long i = 0; i < times; i++) {
                int fd = socket(AF_INET, SOCK_STREAM, 0);
                setitimer(ITIMER_REAL, &timer, NULL);
                int result = bind(fd, (const struct sockaddr*)&asked, sizeof asked);
                if (result == 0 && i % 16 == 0)
                        result = listen(fd, 8);
                const int errnum = errno;
                setitimer(ITIMER_REAL, &none, NULL);
                errno = errnum;
                if (result != 0 && errno == EINTR)
                        lost++;
                else
                        count(result, fd);
                close(fd);
        }
}

static void* storm_thread(void* times) {
        for (long i = 0; i < *(long*)times; i++) {
                const struct sockaddr_in asked = at("0.0.0.0", 8080 + (int)(i % 3));
                int fd = socket(AF_INET, i % 5 == 0 ? SOCK_DGRAM : SOCK_STREAM, 0);
                (void)!bind(fd, (const struct sockaddr*)&asked, sizeof asked);
                if (i % 7 == 0)
                        listen(fd, 1);
                if (is_out(fd))
                        _exit(1);
                close(fd);
        }
        return NULL;
}

static void storm(long times) {
        for (int i = 0; i < 8; i++) {
                if (fork() == 0) {
                        pthread_t threads[4];
                        for (int j = 0; j < 4; j++)
                                pthread_create(&threads[j], NULL, storm_thread, &times);
                        for (int j = 0; j < 4; j++)
                                pthread_join(threads[j], NULL);
                        _exit(0);
                }
        }
        int status;
        while (wait(&status) > 0) {
                bound++;
                escaped += status != 0;
        }
}

int main(int argc, char** argv) {
        const long times = argc > 2 ? atol(argv[2]) : 0;
        if (argc != 3)
                return 2;
        if (strcmp(argv[1], "race") == 0)
                race(times);
        else if (strcmp(argv[1], "swap") == 0)
                swap_race(times);
        else if (strcmp(argv[1], "v6only") == 0)
                v6only_race(times);
        else if (strcmp(argv[1], "signals") == 0)
                signals(times, SA_RESTART);
        else if (strcmp(argv[1], "hard") == 0)
                signals(times, 0);
        else if (strcmp(argv[1], "storm") == 0)
                storm(times);
        else
                return 2;
        printf("bound %ld refused %ld escaped %ld lost %ld\n", bound, refused, escaped, lost);
        return 0;
}
