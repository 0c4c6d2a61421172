/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SOCKBROKER_H
#define SOCKBROKER_H

/*
 * libsockbroker: hands ordinary sockets to sockbrokerd(8), so that the kernel delivers to them what arrives for the
 * prefixes and ports of a service. It speaks the protocol of docs/protocol.md. Manual: libsockbroker(3).
 *
 *     sockbroker_client *broker = NULL;
 *     int r = sockbroker_new(&broker, NULL);
 *     if (r >= 0)
 *             r = sockbroker_register(broker, "web", &listener, 1);
 *     if (r < 0)
 *             fprintf(stderr, "web: %s\n", broker ? sockbroker_get_message(broker) : strerror(-r));
 *     sockbroker_unref(broker);
 *
 * What holds for all functions that return an int:
 *
 * - 0 or more is success. A negative number is an errno(3): the one that the broker gives for its code, or that of what
 *   failed here. Nothing is written to standard error.
 * - A function that fails leaves what its arguments point to as it was, and what the broker has too, but for a request
 *   that was sent and not answered (-ETIMEDOUT, -ECONNRESET).
 * - Times are microseconds. Descriptors that are given are borrowed. Those that come back are the caller's, with
 *   FD_CLOEXEC, in an array for sockbroker_close_fds(), or for free(3) where the descriptors are kept.
 * - `service` is a name of policy, 1 to 40 of A-Z a-z 0-9 . _ -, or NULL: the one service that admits the caller.
 * - There is no global state, no signal, no thread, and no environment but for what has listen_fds in its name.
 */

/* clang-format off */
/*
 * Errors of any function that takes a sockbroker_client:
 *   -EINVAL      an argument is NULL or out of range
 *   -ECHILD      it was made before a fork(2)
 *   -ENOMEM
 * of those that ask the broker, where sockbroker_get_result() is NULL:
 *   -ENOENT, -ECONNREFUSED   no broker runs there
 *   -EACCES                  no permission to connect
 *   -ETIMEDOUT               it took longer than sockbroker_set_timeout() allows
 *   -ECONNRESET              the broker ended before it had answered
 *   -EALREADY                a request that was begun is not over
 *   -EBADF                   a descriptor that was given is not open
 *   -ENAMETOOLONG            runtime_dir is too long for the path of a UNIX socket
 *   -EPROTO, -EMFILE
 * and where sockbroker_get_result() is the code of a refusal, whose remedy docs/protocol.md and sockbrokerd(8) have:
 *   malformed       -EBADMSG          quota           -EDQUOT
 *   unknown-service -ENOENT           busy            -EBUSY
 *   ambiguous       -ENOTUNIQ         not-held        -ENODATA
 *   not-permitted   -EACCES           rate-limited    -EAGAIN
 *   wrong-socket    -EPROTOTYPE       not-root        -EPERM
 *   not-listening   -EINVAL           internal        -EIO
 *   foreign-netns   -EXDEV
 *   mptcp           -EPROTONOSUPPORT
 */
/* clang-format on */

#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOCKBROKER_PUBLIC __attribute__((__visibility__("default")))

/*
 * One conversation with a broker, a request at a time. One thread at a time may use it; others are independent.
 * A thread that is cancelled, pthread_cancel(3), ends where it waits for an answer: what is left of the request is
 * given up by sockbroker_cancel() or sockbroker_unref().
 */
typedef struct sockbroker_client sockbroker_client;

/*
 * Life. sockbroker_new() connects nowhere yet: each request has a connection of its own, so a broker may restart in
 * between. `runtime_dir`: where the broker's sockets are; NULL: /run/sockbroker. For a named network namespace it is
 * /run/sockbroker/netns/NAME. Of sockbroker_unref() the last one closes what is open and gives up what was begun; it
 * returns NULL and takes NULL. sockbroker_unrefp() is for __attribute__((__cleanup__)). A child of fork(2) may only
 * free it; a request that was begun stays the parent's, whatever the child does and however long it lives.
 * Errors: -EMFILE, -ENFILE, -ENOMEM.
 */
SOCKBROKER_PUBLIC int sockbroker_new(sockbroker_client** ret, const char* runtime_dir);
SOCKBROKER_PUBLIC sockbroker_client* sockbroker_ref(sockbroker_client* broker);
SOCKBROKER_PUBLIC sockbroker_client* sockbroker_unref(sockbroker_client* broker);

static __inline__ void sockbroker_unrefp(sockbroker_client** broker) {
        if (broker)
                sockbroker_unref(*broker);
}

/*
 * How long one request may take in all, from then on: 10,000,000 unless set. UINT64_MAX: for ever. -EINVAL: 0.
 */
SOCKBROKER_PUBLIC int sockbroker_set_timeout(sockbroker_client* broker, uint64_t usec);

/*
 * What came of the last request, valid until the next one begins; docs/protocol.md.
 * Result: "ok" or a code; NULL: the broker has not answered, or was not asked. Message: for a person, never NULL.
 * Warning: the i-th of what the broker says beside an "ok" (from 0), NULL: there are no more.
 */
SOCKBROKER_PUBLIC const char* sockbroker_get_result(sockbroker_client* broker);
SOCKBROKER_PUBLIC const char* sockbroker_get_message(sockbroker_client* broker);
SOCKBROKER_PUBLIC const char* sockbroker_get_warning(sockbroker_client* broker, unsigned i);

/*
 * Registers `n` sockets, 1 to 253, in one transaction and one hand-over: TCP that listens, or UDP that is bound and not
 * connected. It serves for as long as anybody has it open: closing it is the end, no call needed. TCP listeners with
 * SO_REUSEPORT get the broker's migration program too: what waits in one that closes goes to the next instance's. Where
 * that fails there is a warning. It replaces a program that chooses within their group (ReusePort=yes of the policy):
 * attach that afterwards, and nothing migrates. Returns 0. -E2BIG: more than 253.
 */
SOCKBROKER_PUBLIC int sockbroker_register(sockbroker_client* broker, const char* service, const int* fds, unsigned n);

/*
 * Takes away what the caller's unit (outside units: its user) registered for the service; the sockets stay open,
 * established connections go on. Returns 0. -ENODATA: there was nothing.
 */
SOCKBROKER_PUBLIC int sockbroker_remove(sockbroker_client* broker, const char* service);

/*
 * The sockets that are held (HoldSec=) for the next instance of the service; they are registered and the caller's then.
 * Returns how many, at least 1, with *ret_fds. Serve all of them, and close those that are not to be served: nobody
 * answers the clients of one that is just open. -ENODATA: none is held, which is how every first instance begins: make
 * a socket and register it. -EMFILE: the caller cannot have so many descriptors; they are held still.
 */
SOCKBROKER_PUBLIC int sockbroker_retrieve(sockbroker_client* broker, const char* service, int** ret_fds);

/*
 * Which service that admits the caller would take a socket bound there; changes nothing. `services`: NULL, or names
 * with colons between them, of which it is to be one. `protocol`: IPPROTO_TCP or IPPROTO_UDP. `address`: struct
 * sockaddr_in or sockaddr_in6 with a port; 0.0.0.0 and :: ask for all that a service has of that family. Returns 0 with
 * *ret_service for free(3). -EACCES: none; -ENOTUNIQ: several fit equally well; -EBUSY: Handover=refuse and somebody
 * serves. -EAFNOSUPPORT.
 */
SOCKBROKER_PUBLIC int sockbroker_match(sockbroker_client* broker, const char* services, int protocol,
                                       const struct sockaddr* address, socklen_t length, char** ret_service);

enum {
        SOCKBROKER_LIVE = 1,   /* the service has a live socket */
        SOCKBROKER_DRAINED = 2 /* nothing is on its way any more to sockets that were displaced: they may be closed */
};

/*
 * Waits until that is so, while the broker may restart. DRAINED looks at sockets of the caller's unit, or of all where
 * that has none there: their accept queues and datagrams (AF_NETLINK; in the broker's network namespace), handshakes,
 * and flows of UdpFlows=stay. `service` must be given. Returns 0. -ETIMEDOUT: the message says what is missing;
 * -ENOENT: no such service.
 */
SOCKBROKER_PUBLIC int sockbroker_wait(sockbroker_client* broker, const char* service, int what);

/*
 * The same without blocking. sockbroker_begin_*() returns at once; then, whenever sockbroker_get_fd() is readable
 * (POLLIN; the timeout counts in), call sockbroker_process(): 0: not yet; 1: over and done, at which
 * sockbroker_take_fds() (retrieve) and sockbroker_get_service() (match) have what came; negative: over and failed. The
 * descriptor is the same for the life of the sockbroker_client; do nothing with it but wait. Sockets given to
 * sockbroker_begin_register() may be closed at once. sockbroker_cancel() gives up: what the broker has done by then
 * stays done.
 *
 *     sockbroker_begin_register(broker, "web", &listener, 1);
 *     struct pollfd ready = { .fd = sockbroker_get_fd(broker), .events = POLLIN };
 *     while ((r = sockbroker_process(broker)) == 0)
 *             poll(&ready, 1, -1);
 */
SOCKBROKER_PUBLIC int sockbroker_begin_register(sockbroker_client* broker, const char* service, const int* fds,
                                                unsigned n);
SOCKBROKER_PUBLIC int sockbroker_begin_remove(sockbroker_client* broker, const char* service);
SOCKBROKER_PUBLIC int sockbroker_begin_retrieve(sockbroker_client* broker, const char* service);
SOCKBROKER_PUBLIC int sockbroker_begin_match(sockbroker_client* broker, const char* services, int protocol,
                                             const struct sockaddr* address, socklen_t length);
SOCKBROKER_PUBLIC int sockbroker_begin_wait(sockbroker_client* broker, const char* service, int what);
SOCKBROKER_PUBLIC int sockbroker_get_fd(sockbroker_client* broker);
/* -ENODATA: nothing was begun. */
SOCKBROKER_PUBLIC int sockbroker_process(sockbroker_client* broker);
SOCKBROKER_PUBLIC int sockbroker_cancel(sockbroker_client* broker);
/* Returns how many, 0: none, or taken already. */
SOCKBROKER_PUBLIC int sockbroker_take_fds(sockbroker_client* broker, int** ret_fds);
/* NULL: none; valid until the next request. */
SOCKBROKER_PUBLIC const char* sockbroker_get_service(sockbroker_client* broker);

/*
 * Sockets that systemd, or sockbroker-run, has passed to this process (sd_listen_fds_with_names(3));
 * FileDescriptorName= is the name of each. `name` NULL: all. The environment stays as it is, and the descriptors are
 * the same at each call. Returns how many, 0: none; *ret_fds is for free(3), NULL where there are none.
 */
SOCKBROKER_PUBLIC int sockbroker_listen_fds(const char* name, int** ret_fds);

/*
 * Registers those of that name for the service of that name. Returns how many, 0: none, and the broker was not asked.
 */
SOCKBROKER_PUBLIC int sockbroker_register_listen_fds(sockbroker_client* broker, const char* service);

/* Closes them and frees the array; returns NULL and takes NULL. */
SOCKBROKER_PUBLIC int* sockbroker_close_fds(int* fds, int n);

#ifdef __cplusplus
}
#endif

#endif
