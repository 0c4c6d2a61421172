// SPDX-License-Identifier: LGPL-2.1-or-later
//
// load [--window N] [--timeout SECONDS] PROTOCOL,ADDRESS,PORT,SERVICE...: clients of brokered services, as many as the
// machine takes, until standard input ends. Each asks a number and wants it back behind the name of an instance of the
// service (SERVICE itself, or SERVICE-anything); where SERVICE is "echo", the number alone. Every question is a flow of
// its own, N at a time. A line on standard input is answered with the counts so far, its end with the last ones: one
// JSON object a line. Nothing is tried again, and nothing is left out: what was begun ends in exactly one of the
// counts.
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/traffic/loops.h"

enum {
        kMostTargets = 64,
        kMostWindow = 1024,
        kMostInstances = 64,
        kNameSize = 48,
        kPauseUsec = 20000,  // after a failure: a client that was refused does not come back in the same moment
};

enum outcome { kOk, kRefused, kReset, kTimedOut, kMisdirected, kShort, kOther, kOutcomes };
static const char* const kNames[] = {"ok", "refused", "reset", "timed_out", "misdirected", "short", "other"};

struct target {
        int tcp, family;
        struct sockaddr_in6 address;
        char service[kNameSize];
};

struct tally {
        long begun, counts[kOutcomes];
        double longest_ok, longest_refusal, longest;
        int error;  // the last of kOther
        char wrong[kNameSize];
        struct {
                char name[kNameSize];
                long answers;
        } instances[kMostInstances];
};

struct question {
        int fd;  // -1: none
        const struct target* target;
        double begun, after;  // `after`: not before that time
        long number;
        int sent;
        unsigned length;
        char answer[128];
};

static struct target targets[kMostTargets];
static unsigned target_count, window = 32;
static double patience = 5;
static struct tally tallies[2];  // by `tcp`
static struct question questions[kMostWindow];
static long numbers;
static int epoll;

static void note_instance(struct tally* tally, const char* name) {
        for (unsigned i = 0; i < kMostInstances; i++) {
                if (tally->instances[i].name[0] == 0)
                        snprintf(tally->instances[i].name, kNameSize, "%s", name);
                if (strcmp(tally->instances[i].name, name) == 0) {
                        tally->instances[i].answers++;
                        return;
                }
        }
}

static void finish(struct question* question, enum outcome outcome, int error) {
        struct tally* const tally = &tallies[question->target->tcp];
        const double now = sb_clock(CLOCK_MONOTONIC), took = now - question->begun;

        tally->counts[outcome]++;
        if (took > tally->longest)
                tally->longest = took;
        if (outcome == kOk && took > tally->longest_ok)
                tally->longest_ok = took;
        if (outcome == kRefused && took > tally->longest_refusal)
                tally->longest_refusal = took;
        if (outcome == kOther)
                tally->error = error;
        if (question->fd >= 0)
                close(question->fd);
        question->fd = -1;
        question->after = outcome == kOk ? 0 : now + kPauseUsec / 1e6;
}

static void fail(struct question* question, int error) {
        if (error == ECONNREFUSED)
                finish(question, kRefused, error);
        else if (error == ECONNRESET || error == EPIPE)
                finish(question, kReset, error);
        else
                finish(question, kOther, error);
}

static void judge(struct question* question) {
        struct tally* const tally = &tallies[question->target->tcp];
        const char* const service = question->target->service;
        char number[32], name[kNameSize] = "", back[32] = "";

        question->answer[question->length] = 0;
        snprintf(number, sizeof number, "%ld", question->number);
        if (strcmp(service, "echo") == 0) {
                sscanf(question->answer, "%31s", back);
                finish(question, strcmp(back, number) == 0 ? kOk : kShort, 0);
                return;
        }
        sscanf(question->answer, "%47s %31s", name, back);
        const size_t length = strlen(service);
        if (strncmp(name, service, length) != 0 || (name[length] != 0 && name[length] != '-')) {
                snprintf(tally->wrong, sizeof tally->wrong, "%s", name);
                finish(question, kMisdirected, 0);
        } else if (strcmp(back, number) != 0) {
                finish(question, kShort, 0);
        } else {
                note_instance(tally, name);
                finish(question, kOk, 0);
        }
}

static void begin(struct question* question) {
        static unsigned next;
        const struct linger reset = {.l_onoff = 1};  // no TIME_WAIT, so that ports do not run out

        question->target = &targets[next++ % target_count];
        tallies[question->target->tcp].begun++;
        question->begun = sb_clock(CLOCK_MONOTONIC);
        question->number = ++numbers;
        question->sent = 0;
        question->length = 0;
        question->fd = socket(question->target->family,
                              (question->target->tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (question->fd < 0) {
                fail(question, errno);
                return;
        }
        if (question->target->tcp)
                setsockopt(question->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = question};
        if ((connect(question->fd, (const struct sockaddr*)&question->target->address,
                     sb_length(question->target->family)) < 0 &&
             errno != EINPROGRESS) ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, question->fd, &event) < 0)
                fail(question, errno);
}

static void proceed(struct question* question, unsigned events) {
        char text[32];

        if (!question->sent) {
                int error = 0;
                socklen_t size = sizeof error;
                getsockopt(question->fd, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error != 0) {
                        fail(question, error);
                        return;
                }
                if (!(events & EPOLLOUT))
                        return;
                const int length = snprintf(text, sizeof text, "%ld\n", question->number);
                if (send(question->fd, text, length, MSG_NOSIGNAL) != length) {
                        fail(question, errno);
                        return;
                }
                question->sent = 1;
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = question};
                epoll_ctl(epoll, EPOLL_CTL_MOD, question->fd, &event);
        }
        const ssize_t got = recv(question->fd, question->answer + question->length,
                                 sizeof question->answer - 1 - question->length, 0);
        if (got < 0 && errno == EAGAIN)
                return;
        if (got < 0) {
                fail(question, errno);
                return;
        }
        question->length += got;
        if (memchr(question->answer, '\n', question->length) != NULL)
                judge(question);
        else if (got == 0 || !question->target->tcp || question->length == sizeof question->answer - 1)
                finish(question, kShort, 0);
}

static void print_tally(const char* name, const struct tally* tally) {
        printf("\"%s\": {\"begun\": %ld", name, tally->begun);
        for (unsigned i = 0; i < kOutcomes; i++)
                printf(", \"%s\": %ld", kNames[i], tally->counts[i]);
        printf(", \"longest_ok_ms\": %.3f, \"longest_refusal_ms\": %.3f, \"longest_ms\": %.3f", tally->longest_ok * 1e3,
               tally->longest_refusal * 1e3, tally->longest * 1e3);
        printf(", \"error\": \"%s\", \"wrong\": \"%s\", \"instances\": {", tally->error ? strerror(tally->error) : "",
               tally->wrong);
        for (unsigned i = 0; i < kMostInstances && tally->instances[i].name[0]; i++)
                printf("%s\"%s\": %ld", i ? ", " : "", tally->instances[i].name, tally->instances[i].answers);
        printf("}}");
}

static void print(double since) {
        printf("{\"seconds\": %.3f, ", sb_clock(CLOCK_MONOTONIC) - since);
        print_tally("tcp", &tallies[1]);
        printf(", ");
        print_tally("udp", &tallies[0]);
        printf("}\n");
        fflush(stdout);
}

// PROTOCOL,ADDRESS,PORT,SERVICE
static int parse(char* text) {
        struct target* const target = &targets[target_count];
        const char* const protocol = strsep(&text, ",");
        const char* const address = strsep(&text, ",");
        const char* const port = strsep(&text, ",");

        if (target_count == kMostTargets || !text || !*text || strlen(text) >= kNameSize)
                return -1;
        target->tcp = strcmp(protocol, "tcp") == 0;
        strcpy(target->service, text);
        struct sockaddr_in* const v4 = (struct sockaddr_in*)&target->address;
        if (inet_pton(AF_INET, address, &v4->sin_addr) == 1)
                target->family = AF_INET;
        else if (inet_pton(AF_INET6, address, &target->address.sin6_addr) == 1)
                target->family = AF_INET6;
        else
                return -1;
        target->address.sin6_family = target->family;
        target->address.sin6_port = htons(atoi(port));
        target_count++;
        return 0;
}

// Returns whether to go on.
static int read_commands(double since) {
        char text[256];
        const ssize_t got = read(STDIN_FILENO, text, sizeof text);
        for (ssize_t i = 0; i < got; i++)
                if (text[i] == '\n')
                        print(since);
        return got > 0;
}

int main(int argc, char** argv) {
        struct epoll_event events[kMostWindow + 1];
        struct rlimit files = {4096, 4096};
        int wanted = 1, open = 0;

        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--window") == 0 && i + 1 < argc) {
                        window = atoi(argv[++i]);
                } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
                        patience = atof(argv[++i]);
                } else if (parse(argv[i]) < 0) {
                        fprintf(stderr, "load: cannot take \"%s\", see the head of load.c\n", argv[i]);
                        return 2;
                }
        }
        if (target_count == 0 || window == 0 || window > kMostWindow) {
                fprintf(stderr, "load: no target, or a window beyond %d\n", kMostWindow);
                return 2;
        }
        setrlimit(RLIMIT_NOFILE, &files);
        epoll = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event input = {.events = EPOLLIN};
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
        for (unsigned i = 0; i < window; i++)
                questions[i].fd = -1;
        const double since = sb_clock(CLOCK_MONOTONIC);
        double scanned = since;

        while (wanted || open) {
                double now = sb_clock(CLOCK_MONOTONIC);
                open = 0;
                for (unsigned i = 0; i < window; i++) {
                        if (wanted && questions[i].fd < 0 && now >= questions[i].after)
                                begin(&questions[i]);
                        open += questions[i].fd >= 0;
                }
                const int ready = epoll_wait(epoll, events, kMostWindow + 1, open == (int)window ? 50 : 1);
                for (int i = 0; i < ready; i++) {
                        if (events[i].data.ptr != NULL)
                                proceed(events[i].data.ptr, events[i].events);
                        else if (wanted && !(wanted = read_commands(since)))
                                epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
                }
                now = sb_clock(CLOCK_MONOTONIC);
                if (now - scanned < 0.05)
                        continue;
                scanned = now;
                for (unsigned i = 0; i < window; i++)
                        if (questions[i].fd >= 0 && now - questions[i].begun > patience)
                                finish(&questions[i], kTimedOut, 0);
        }
        print(since);
        return 0;
}
