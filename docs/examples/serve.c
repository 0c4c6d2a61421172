/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * serve SERVICE: takes the sockets that systemd passed, or those that are held for it, or makes one, registers it by
 * libsockbroker, and says who it is to each client.
 *     cc serve.c $(pkg-config --cflags --libs sockbroker) -o serve
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sockbroker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_listener(void) {
        struct sockaddr_in at = {.sin_family = AF_INET};  // the kernel chooses the port
        const int on = 1;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        // With SO_REUSEPORT connections that wait when this instance ends go to the next one.
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
            bind(fd, (struct sockaddr*)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0)
                return -errno;
        return fd;
}

static int take_listener(sockbroker_client* broker, const char* service) {
        int* fds = NULL;
        int n = sockbroker_listen_fds(service, &fds);
        if (n == 0)
                n = sockbroker_retrieve(broker, service, &fds);
        const int fd = n > 0 ? fds[0] : n == -ENODATA ? make_listener() : n;
        free(fds);
        if (fd < 0)
                return fd;
        n = sockbroker_register(broker, service, &fd, 1);  // one that was retrieved is registered; again is no harm
        return n < 0 ? n : fd;
}

int main(int argc, char** argv) {
        __attribute__((__cleanup__(sockbroker_unrefp))) sockbroker_client* broker = NULL;
        const char* service = argc > 1 ? argv[1] : "web";
        int fd = sockbroker_new(&broker, NULL);
        if (fd >= 0)
                fd = take_listener(broker, service);
        if (fd < 0) {
                const char* said = broker ? sockbroker_get_message(broker) : "";
                fprintf(stderr, "%s: %s\n", service, *said ? said : strerror(-fd));
                return EXIT_FAILURE;
        }
        for (unsigned i = 0; sockbroker_get_warning(broker, i); i++)
                fprintf(stderr, "%s: %s\n", service, sockbroker_get_warning(broker, i));
        printf("ready\n");
        fflush(stdout);
        for (;;) {
                const int client = accept(fd, NULL, NULL);
                if (client >= 0) {
                        dprintf(client, "%s in C\n", service);
                        close(client);
                }
        }
}
