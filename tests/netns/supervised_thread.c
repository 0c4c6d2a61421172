/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_supervise_habits.py: programs that share less, or more, of themselves than usual.
 *
 *   supervised_thread own      a thread with a table of descriptors of its own binds a socket whose number is
 *                              another socket's in the first thread; prints the ports to which both are bound
 *   supervised_thread vfork    a child that has its parent's memory binds and listens; prints what it heard
 *   supervised_thread plain    none of this: binds and listens itself, prints what it heard and as whom
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 1 << 20 };

static int threads_socket = -1, others_port = -1;
static int tid; /* the kernel writes 0 here and wakes when the thread has ended */

static int bind_to(int fd, in_addr_t address, int port) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
        return bind(fd, (struct sockaddr*)&at, sizeof at) == 0 ? 0 : errno;
}

static int port_of(int fd) {
        struct sockaddr_in name = {0};
        socklen_t size = sizeof name;
        return getsockname(fd, (struct sockaddr*)&name, &size) == 0 ? ntohs(name.sin_port) : -1;
}

static int run(void* unused) {
        (void)unused;
        threads_socket = socket(AF_INET, SOCK_STREAM, 0);
        bind_to(threads_socket, INADDR_LOOPBACK, 8081);
        others_port = port_of(threads_socket);
        syscall(SYS_exit, 0); /* of the thread alone, without the C library, which does not know it */
        return 0;
}

static int own(void) {
        char* stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        const int flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_SETTID |
                          CLONE_CHILD_CLEARTID;
        __atomic_store_n(&tid, 1, __ATOMIC_SEQ_CST);
        if (stack == MAP_FAILED || clone(run, stack + STACK, flags, NULL, NULL, NULL, &tid) < 0)
                return 1;
        const int first = socket(AF_INET, SOCK_STREAM, 0);
        while (__atomic_load_n(&tid, __ATOMIC_SEQ_CST) != 0)
                sched_yield();
        printf("%d %d %d\n", first == threads_socket, others_port, port_of(first));
        return 0;
}

static int from_vfork(void) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        volatile int bound = -1;
        volatile int listening = -1;
        const pid_t child = vfork();
        if (child == 0) {
                bound = bind_to(fd, INADDR_ANY, 80);
                listening = listen(fd, 5);
                _exit(0);
        }
        waitpid(child, NULL, 0);
        printf("%d %d\n", bound, listening);
        return 0;
}

static int plain(void) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        const int bound = bind_to(fd, INADDR_ANY, 80);
        printf("%d %d as %d\n", bound, listen(fd, 5) == 0 ? 0 : errno, (int)geteuid());
        return 0;
}

int main(int argc, char** argv) {
        if (argc != 2)
                return 2;
        return strcmp(argv[1], "own") == 0 ? own() : strcmp(argv[1], "plain") == 0 ? plain() : from_vfork();
}
