/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * serve SERVICE: takes the sockets that systemd passed, or those that are held for it, or makes one, registers it by
 * libsockbroker, and says who it is to each client.
 *     cc serve.c $(pkg-config --cflags --libs sockbroker) -o serve
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sockbroker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_listener(int** fds) {
        struct sockaddr_in at = {.sin_family = AF_INET};  // the kernel chooses the port
        const int on = 1;
        int* fd = malloc(sizeof *fd);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (!fd)
                return -ENOMEM;
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        // With SO_REUSEPORT connections that wait when this instance ends go to the next one.
        if (*fd < 0 || setsockopt(*fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
            bind(*fd, (struct sockaddr*)&at, sizeof at) < 0 || listen(*fd, SOMAXCONN) < 0)
                return -errno;
        *fds = fd;
        return 1;
}

static int take_listeners(sockbroker_client* broker, const char* service, int** fds) {
        int n = sockbroker_listen_fds(service, fds);
        if (n == 0) {
                n = sockbroker_retrieve(broker, service, fds);
                if (n != -ENODATA)
                        return n;  // those that were held are registered
                n = make_listener(fds);
        }
        const int r = n < 0 ? n : sockbroker_register(broker, service, *fds, (unsigned)n);
        return r < 0 ? r : n;
}

// From whichever has a client: who waits in one that nobody accepts from waits in vain.
static void serve(const char* service, const int* fds, int n) {
        struct pollfd ready[n];
        for (int i = 0; i < n; i++) {
                ready[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
                fcntl(fds[i], F_SETFL, O_NONBLOCK);  // an instance beside this one may be quicker
        }
        for (;;) {
                poll(ready, (nfds_t)n, -1);
                for (int i = 0; i < n; i++) {
                        const int client = ready[i].revents ? accept(ready[i].fd, NULL, NULL) : -1;
                        if (client >= 0) {
                                dprintf(client, "%s in C\n", service);
                                close(client);
                        }
                }
        }
}

int main(int argc, char** argv) {
        __attribute__((__cleanup__(sockbroker_unrefp))) sockbroker_client* broker = NULL;
        const char* service = argc > 1 ? argv[1] : "web";
        int* fds = NULL;
        int n = sockbroker_new(&broker, NULL);
        signal(SIGPIPE, SIG_IGN);  // a client that has gone before it is answered ends nothing
        if (n >= 0)
                n = take_listeners(broker, service, &fds);
        if (n < 0) {
                const char* said = broker ? sockbroker_get_message(broker) : "";
                fprintf(stderr, "%s: %s\n", service, *said ? said : strerror(-n));
                return EXIT_FAILURE;
        }
        for (unsigned i = 0; sockbroker_get_warning(broker, i); i++)
                fprintf(stderr, "%s: %s\n", service, sockbroker_get_warning(broker, i));
        printf("ready\n");
        fflush(stdout);
        serve(service, fds, n);
}
