/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_library.py: a service that uses each function of libsockbroker, in C11, and says on standard error where it
 * did not get what sockbroker.h promises. Parts, by the first argument:
 *
 * blocking SERVICE     all but retrieving, each function one after the other
 * polling SERVICE      the same by the pollable descriptor
 * serve SERVICE LABEL  registers a listener, or takes the held one, and answers LABEL until it is killed
 * scarce SERVICE LABEL serves the held one too, but has no descriptor left for it at first: says "refused", and goes on
 *                      after a line
 * drain SERVICE        registers two listeners, the second displaces the first, and waits until that is drained
 * fork SERVICE         a child does not use what its parent has made
 * fork-amid SERVICE    the program forks while requests are under way; says "answered", and goes on after a line
 * cancelled SERVICE    threads are cancelled in the middle of a request
 * crowded SERVICE      there are too many connections of its user
 * absent               no broker is there
 * silent               one that takes connections and says nothing
 * passed SERVICE       registers what LISTEN_FDS passes
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/lib/sockbroker.h"

#define MUST(condition)                                                                                      \
        do {                                                                                                 \
                if (!(condition)) {                                                                          \
                        fprintf(stderr, "line %d: not so: %s; errno %s, broker: %s\n", __LINE__, #condition, \
                                strerror(errno), broker ? sockbroker_get_message(broker) : "");              \
                        exit(1);                                                                             \
                }                                                                                            \
        } while (0)

static sockbroker_client* broker;

static struct sockaddr_in loopback(int port) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return at;
}

static int bound(int type, int port) {
        const int on = 1;
        struct sockaddr_in at = loopback(port);
        int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
        MUST(fd >= 0);
        MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
        MUST(bind(fd, (struct sockaddr*)&at, sizeof at) == 0);
        MUST(type == SOCK_DGRAM || listen(fd, 16) == 0);
        return fd;
}

static void begin_again(void) {
        MUST(sockbroker_new(&broker, NULL) == 0);
        MUST(sockbroker_get_result(broker) == NULL);
        MUST(strcmp(sockbroker_get_message(broker), "") == 0);
}

static bool refused(int r, int errnum, const char* result) {
        const char* said = sockbroker_get_result(broker);
        return r == -errnum && (result ? said && strcmp(said, result) == 0 : said == NULL) &&
               *sockbroker_get_message(broker);
}

static void wrong_arguments(const char* service, int fd) {
        struct sockaddr_in at = loopback(80);
        struct sockaddr_un_like {
                sa_family_t family;
        } local = {AF_UNIX};
        char* name = (char*)"untouched";
        int* fds = &fd;
        int many[254] = {0};

        MUST(sockbroker_new(NULL, NULL) == -EINVAL);
        MUST(sockbroker_register(NULL, service, &fd, 1) == -EINVAL);
        MUST(sockbroker_get_result(NULL) == NULL && !*sockbroker_get_message(NULL));
        MUST(sockbroker_unref(NULL) == NULL && sockbroker_ref(NULL) == NULL);
        MUST(sockbroker_set_timeout(broker, 0) == -EINVAL);
        MUST(refused(sockbroker_register(broker, "no such\nFDNAME=x", &fd, 1), EINVAL, NULL));
        MUST(refused(sockbroker_register(broker, "", &fd, 1), EINVAL, NULL));
        MUST(refused(sockbroker_register(broker, service, NULL, 1), EINVAL, NULL));
        MUST(refused(sockbroker_register(broker, service, &fd, 0), EINVAL, NULL));
        MUST(refused(sockbroker_register(broker, service, many, 254), E2BIG, NULL));
        MUST(refused(sockbroker_register(broker, service, &(int){-1}, 1), EBADF, NULL));
        MUST(refused(sockbroker_begin_register(broker, service, &(int){-1}, 1), EBADF, NULL));
        MUST(sockbroker_retrieve(broker, service, NULL) == -EINVAL);
        MUST(refused(sockbroker_retrieve(broker, "a:b", &fds), EINVAL, NULL) && fds == &fd);
        MUST(refused(sockbroker_match(broker, "a::b", IPPROTO_TCP, (struct sockaddr*)&at, sizeof at, &name), EINVAL,
                     NULL));
        MUST(refused(sockbroker_match(broker, "", IPPROTO_TCP, (struct sockaddr*)&at, sizeof at, &name), EINVAL, NULL));
        MUST(refused(sockbroker_match(broker, NULL, IPPROTO_ICMP, (struct sockaddr*)&at, sizeof at, &name), EINVAL,
                     NULL));
        MUST(refused(sockbroker_match(broker, NULL, IPPROTO_TCP, (struct sockaddr*)&at, 4, &name), EAFNOSUPPORT, NULL));
        MUST(refused(sockbroker_match(broker, NULL, IPPROTO_TCP, (struct sockaddr*)&local, sizeof local, &name),
                     EAFNOSUPPORT, NULL));
        MUST(refused(sockbroker_match(broker, NULL, IPPROTO_TCP, NULL, 0, &name), EINVAL, NULL));
        MUST(strcmp(name, "untouched") == 0);
        MUST(refused(sockbroker_wait(broker, NULL, SOCKBROKER_LIVE), EINVAL, NULL));
        MUST(refused(sockbroker_wait(broker, service, 3), EINVAL, NULL));
        MUST(sockbroker_process(broker) == -ENODATA);
        MUST(sockbroker_close_fds(NULL, 3) == NULL);
}

static void blocking(const char* service) {
        int fds[] = {bound(SOCK_STREAM, 0), bound(SOCK_DGRAM, 7000), bound(SOCK_STREAM, 0)};
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7000)};
        struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons(7000)};
        struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(7000)};
        char* name = NULL;
        int* held = NULL;

        wrong_arguments(service, fds[0]);
        MUST(refused(sockbroker_wait(broker, "no-such-service", SOCKBROKER_LIVE), ENOENT, "unknown-service"));
        MUST(sockbroker_set_timeout(broker, 300000) == 0);
        MUST(refused(sockbroker_wait(broker, service, SOCKBROKER_LIVE), ETIMEDOUT, NULL));
        MUST(strstr(sockbroker_get_message(broker), "has no live socket"));
        MUST(sockbroker_set_timeout(broker, UINT64_MAX) == 0);

        MUST(refused(sockbroker_retrieve(broker, service, &held), ENODATA, "not-held") && held == NULL);
        MUST(refused(sockbroker_remove(broker, service), ENODATA, "not-held"));
        MUST(refused(sockbroker_register(broker, "no-such-service", fds, 2), ENOENT, "unknown-service"));
        MUST(refused(sockbroker_register(broker, service, (int[]){fds[0], 1}, 2), EPROTOTYPE, "wrong-socket"));

        MUST(inet_pton(AF_INET, "192.0.2.9", &at.sin_addr) == 1);
        MUST(sockbroker_match(broker, NULL, IPPROTO_TCP, (struct sockaddr*)&at, sizeof at, &name) == 0);
        MUST(strcmp(name, service) == 0);
        free(name);
        MUST(inet_pton(AF_INET6, "::ffff:192.0.2.9", &mapped.sin6_addr) == 1);
        MUST(sockbroker_match(broker, service, IPPROTO_UDP, (struct sockaddr*)&mapped, sizeof mapped, &name) == 0);
        free(name);
        MUST(sockbroker_match(broker, NULL, IPPROTO_UDP, (struct sockaddr*)&six, sizeof six, &name) ==
             0);  // any of IPv6
        free(name);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        MUST(refused(sockbroker_match(broker, NULL, IPPROTO_TCP, (struct sockaddr*)&at, sizeof at, &name), EACCES,
                     "not-permitted"));

        MUST(sockbroker_register(broker, service, fds, 2) == 0);
        MUST(strcmp(sockbroker_get_result(broker), "ok") == 0);
        MUST(sockbroker_get_warning(broker, 0) && strstr(sockbroker_get_warning(broker, 0), "IPv6"));
        MUST(!sockbroker_get_warning(broker, 100));
        MUST(fcntl(fds[0], F_GETFD) >= 0);
        MUST(sockbroker_wait(broker, service, SOCKBROKER_LIVE) == 0);
        MUST(sockbroker_wait(broker, service, SOCKBROKER_DRAINED) == 0);
        MUST(sockbroker_get_warning(broker, 0) == NULL);
        MUST(sockbroker_remove(broker, NULL) == 0);  // the only service that admits this user
        for (int i = 0; i < 3; i++)
                close(fds[i]);
}

static int finished(void) {
        struct pollfd ready = {.fd = sockbroker_get_fd(broker), .events = POLLIN};
        int r;
        while ((r = sockbroker_process(broker)) == 0)
                MUST(poll(&ready, 1, 10000) == 1);
        MUST(poll(&ready, 1, 0) == 0);  // quiet again
        return r;
}

static void polling(const char* service) {
        int fd = bound(SOCK_STREAM, 0), watched = sockbroker_get_fd(broker);
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7000)};
        int* held = &fd;

        MUST(sockbroker_begin_match(broker, NULL, IPPROTO_TCP, (struct sockaddr*)&at, sizeof at) == 0);
        MUST(sockbroker_begin_remove(broker, service) == -EALREADY);
        MUST(sockbroker_get_result(broker) == NULL && sockbroker_get_service(broker) == NULL);
        MUST(finished() == 1 && strcmp(sockbroker_get_service(broker), service) == 0);

        MUST(sockbroker_begin_wait(broker, service, SOCKBROKER_LIVE) == 0);
        MUST(sockbroker_process(broker) == 0);
        MUST(sockbroker_cancel(broker) == 0 && sockbroker_process(broker) == -ENODATA);
        MUST(sockbroker_set_timeout(broker, 250000) == 0);
        MUST(sockbroker_begin_wait(broker, service, SOCKBROKER_LIVE) == 0);
        MUST(refused(finished(), ETIMEDOUT, NULL));
        MUST(sockbroker_set_timeout(broker, 10000000) == 0);

        MUST(sockbroker_begin_register(broker, service, &fd, 1) == 0);
        const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        close(fd);  // it has a duplicate
        MUST(finished() == 1 && strcmp(sockbroker_get_result(broker), "ok") == 0);
        MUST(sockbroker_begin_wait(broker, service, SOCKBROKER_LIVE) == 0 && finished() == 1);
        MUST(sockbroker_begin_remove(broker, service) == 0 && finished() == 1);
        MUST(sockbroker_begin_remove(broker, service) == 0 && refused(finished(), ENODATA, "not-held"));
        MUST(sockbroker_begin_retrieve(broker, service) == 0);
        MUST(sockbroker_take_fds(broker, &held) == -EALREADY && held == &fd);
        MUST(refused(finished(), ENODATA, "not-held"));
        MUST(sockbroker_take_fds(broker, &held) == 0 && held == NULL);
        MUST(sockbroker_get_fd(broker) == watched);
        MUST(sockbroker_begin_register(broker, service, &kept, 1) == 0);
        close(kept);  // and what was begun ends with its client
}

static void serve(const char* service, const char* label) {
        int* fds = NULL;
        int r = sockbroker_retrieve(broker, service, &fds), fd;
        MUST(r == 1 || r == -ENODATA);
        if (r == 1) {
                fd = fds[0];
                MUST(fcntl(fd, F_GETFD) == FD_CLOEXEC);
                free(fds);
        } else {
                fd = bound(SOCK_STREAM, 0);
                MUST(sockbroker_register(broker, service, &fd, 1) == 0);
        }
        sockbroker_unref(broker);
        printf("%s\n", r == 1 ? "retrieved" : "registered");
        fflush(stdout);
        for (;;) {
                int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                if (client >= 0) {
                        dprintf(client, "%s\n", label);
                        close(client);
                }
        }
}

static void scarce(const char* service, const char* label) {
        struct rlimit few = {.rlim_cur = 64, .rlim_max = 64};
        int taken[64], count = 0, *fds = NULL;
        char byte;

        MUST(setrlimit(RLIMIT_NOFILE, &few) == 0);
        while (count < 64 && (taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
                count++;
        MUST(errno == EMFILE && count > 1);
        close(taken[--count]);  // for the connection
        MUST(refused(sockbroker_retrieve(broker, service, &fds), EMFILE, NULL) && !fds);
        MUST(refused(sockbroker_retrieve(broker, NULL, &fds), EMFILE, NULL) && !fds);
        printf("refused\n");
        fflush(stdout);
        MUST(read(STDIN_FILENO, &byte, 1) == 1);
        close(taken[--count]);  // for the socket
        serve(service, label);
}

static void drain(const char* service) {
        int old = bound(SOCK_STREAM, 0), new = bound(SOCK_STREAM, 0);
        MUST(sockbroker_register(broker, service, &old, 1) == 0);
        MUST(sockbroker_register(broker, service, &new, 1) == 0);
        MUST(sockbroker_set_timeout(broker, 200000) == 0);
        MUST(refused(sockbroker_wait(broker, service, SOCKBROKER_DRAINED), ETIMEDOUT, NULL));
        MUST(strstr(sockbroker_get_message(broker), "may have half-open handshakes"));
        close(old);
        MUST(sockbroker_set_timeout(broker, 30000000) == 0);
        MUST(sockbroker_wait(broker, service, SOCKBROKER_DRAINED) == 0);
        close(new);
}

static void forked(const char* service) {
        int fd = bound(SOCK_STREAM, 0), status = 0;
        const pid_t child = fork();
        MUST(child >= 0);
        if (child == 0) {
                MUST(sockbroker_register(broker, service, &fd, 1) == -ECHILD);
                MUST(sockbroker_get_fd(broker) == -ECHILD);
                MUST(sockbroker_unref(broker) == NULL);
                _exit(0);
        }
        MUST(waitpid(child, &status, 0) == child && status == 0);
        MUST(sockbroker_register(broker, service, &fd, 1) == 0);
        close(fd);
}

static pid_t child_while_under_way(const char* service, const int parent[2], bool frees) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7000)};
        char byte;
        do
                MUST(sockbroker_begin_match(broker, service, IPPROTO_TCP, (struct sockaddr*)&at, sizeof at) == 0);
        while (sockbroker_process(broker) != 0);  // answered at once: then it is not under way
        const pid_t child = fork();
        MUST(child >= 0);
        if (child == 0) {
                close(parent[1]);
                if (frees)
                        sockbroker_unref(broker);
                _exit(read(parent[0], &byte, 1) == 0 ? 0 : 1);  // lives for as long as its parent
        }
        return child;
}

static void forked_amid(const char* service) {
        enum { kChildren = 41 };  // all but the first keep what they have, more than a user may have connections
        pid_t children[kChildren];
        int parent[2], status = 0;
        char byte;

        MUST(pipe(parent) == 0);
        for (int i = 0; i < kChildren; i++) {
                children[i] = child_while_under_way(service, parent, i == 0);
                if (i % 2 == 0) {
                        MUST(finished() == 1 && strcmp(sockbroker_get_service(broker), service) == 0);
                } else {
                        sockbroker_unref(broker);  // gives it up
                        begin_again();
                }
        }
        printf("answered\n");
        fflush(stdout);
        MUST(read(STDIN_FILENO, &byte, 1) == 1);  // the broker has restarted
        struct pollfd ready = {.fd = sockbroker_get_fd(broker), .events = POLLIN};
        MUST(poll(&ready, 1, 0) == 0);
        close(parent[0]);
        close(parent[1]);
        for (int i = 0; i < kChildren; i++)
                MUST(waitpid(children[i], &status, 0) == children[i] && status == 0);
}

static int open_descriptors(void) {
        int count = 0;
        for (int fd = 0; fd < 256; fd++)
                count += fcntl(fd, F_GETFD) >= 0;
        return count;
}

struct request {
        const char* service;
        int fd, which;
};

static void unref(void* own) {
        sockbroker_unref(own);
}

// Is cancelled already, so that the first call that can end it for that would.
static void* cancelled_in(void* argument) {
        const struct request* request = argument;
        struct sockaddr_in at = loopback(80);
        sockbroker_client* own = NULL;
        char* name = NULL;
        int* fds = NULL;

        if (sockbroker_new(&own, NULL) < 0)
                return NULL;
        pthread_cleanup_push(unref, own);
        pthread_cancel(pthread_self());
        switch (request->which) {
        case 0:
                sockbroker_register(own, request->service, &request->fd, 1);
                break;
        case 1:
                sockbroker_remove(own, request->service);
                break;
        case 2:
                sockbroker_retrieve(own, request->service, &fds);
                break;
        case 3:
                sockbroker_match(own, request->service, IPPROTO_TCP, (struct sockaddr*)&at, sizeof at, &name);
                break;
        case 4:
                sockbroker_wait(own, "no-such-service", SOCKBROKER_LIVE);
                break;
        default:  // these do not wait
                sockbroker_begin_register(own, request->service, &request->fd, 1);
                sockbroker_process(own);
                sockbroker_cancel(own);
                sockbroker_unref(sockbroker_ref(own));
                fds = malloc(sizeof *fds);
                *fds = dup(request->fd);
                sockbroker_close_fds(fds, 1);
        }
        pthread_testcancel();  // an answer may have come at once
        pthread_cleanup_pop(1);
        return NULL;
}

static void cancelled(const char* service) {
        struct request request = {.service = service, .fd = bound(SOCK_STREAM, 0)};
        const int before = open_descriptors();
        for (request.which = 0; request.which < 6; request.which++) {
                pthread_t thread;
                void* result = NULL;
                MUST(pthread_create(&thread, NULL, cancelled_in, &request) == 0);
                MUST(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
                MUST(open_descriptors() == before);
        }
        MUST(sockbroker_register(broker, service, &request.fd, 1) == 0);
        close(request.fd);
}

static void crowded(const char* service) {
        int fd = bound(SOCK_STREAM, 0);
        for (int i = 0; i < 400; i++)
                MUST(refused(sockbroker_register(broker, service, &fd, 1), EAGAIN, "rate-limited"));
        close(fd);
}

static void absent(void) {
        int fd = bound(SOCK_STREAM, 0);
        MUST(refused(sockbroker_register(broker, "web", &fd, 1), ENOENT, NULL));
        MUST(sockbroker_begin_register(broker, "web", &fd, 1) == 0 && refused(finished(), ENOENT, NULL));
        MUST(sockbroker_set_timeout(broker, 250000) == 0);
        MUST(refused(sockbroker_wait(broker, "web", SOCKBROKER_LIVE), ETIMEDOUT, NULL));
        MUST(strstr(sockbroker_get_message(broker), "is sockbrokerd running?"));
        close(fd);
}

static void silent(void) {
        int fd = bound(SOCK_STREAM, 0);
        MUST(sockbroker_set_timeout(broker, 100000) == 0);
        MUST(refused(sockbroker_register(broker, "web", &fd, 1), ETIMEDOUT, NULL));
        MUST(refused(sockbroker_wait(broker, "web", SOCKBROKER_DRAINED), ETIMEDOUT, NULL));
        close(fd);
}

static void passed(const char* service) {
        int* fds = NULL;
        MUST(sockbroker_listen_fds(NULL, &fds) == 2 && fds[0] == 3 && fds[1] == 4);
        free(fds);
        MUST(sockbroker_listen_fds("other", &fds) == 1 && fds[0] == 4);
        free(fds);
        MUST(sockbroker_listen_fds("nobody", &fds) == 0 && fds == NULL);
        MUST(sockbroker_register_listen_fds(broker, NULL) == -EINVAL);
        MUST(sockbroker_register_listen_fds(broker, "nobody") == 0);
        MUST(sockbroker_register_listen_fds(broker, service) == 1);
}

int main(int argc, char** argv) {
        const char* part = argc > 1 ? argv[1] : "";
        const char* service = argc > 2 ? argv[2] : "";
        begin_again();
        if (strcmp(part, "blocking") == 0)
                blocking(service);
        else if (strcmp(part, "polling") == 0)
                polling(service);
        else if (strcmp(part, "serve") == 0 && argc > 3)
                serve(service, argv[3]);
        else if (strcmp(part, "scarce") == 0 && argc > 3)
                scarce(service, argv[3]);
        else if (strcmp(part, "drain") == 0)
                drain(service);
        else if (strcmp(part, "fork") == 0)
                forked(service);
        else if (strcmp(part, "fork-amid") == 0)
                forked_amid(service);
        else if (strcmp(part, "cancelled") == 0)
                cancelled(service);
        else if (strcmp(part, "crowded") == 0)
                crowded(service);
        else if (strcmp(part, "absent") == 0)
                absent();
        else if (strcmp(part, "silent") == 0)
                silent();
        else if (strcmp(part, "passed") == 0)
                passed(service);
        else
                return 2;
        MUST(sockbroker_ref(broker) == broker && sockbroker_unref(broker) == NULL);
        sockbroker_unref(broker);
        return 0;
}
