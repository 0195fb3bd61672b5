/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_client.h - TLS towards backends with OpenSSL 3.
 *
 * A tls_client is what one upstream says of TLS: whom to trust, which certificate to show, the
 * oldest version. Like a tls_server it is immutable, counted, and shared by all confs of a process
 * whose inputs have the same digest; it points into no conf.
 *
 * A tls_remote is one backend as TLS sees it: the settings, the name that its certificate must
 * have, and the session that the last connection left for the next one to resume (one, so memory is
 * bounded by the number of backends). Other settings or another name make another remote: what was
 * verified for one is never taken for the other.
 */
#ifndef SHARED_TLS_CLIENT_H
#define SHARED_TLS_CLIENT_H

#include "shared/tls.h"

struct tls_client_input {
    bool verify;                       /* false: any certificate will do, and no name is checked */
    struct slice ca_pem;               /* authorities to trust; needed to verify */
    const char *ca_path;               /* for messages */
    const struct tls_cert_input *cert; /* to show when asked for one; NULL: none */
    unsigned min_version;              /* 0x0303, 0x0304 */
};

struct tls_client;
struct tls_remote;

/* Build or find one with the same inputs (count + 1). Inputs are copied as needed. NULL with
 * *problem filled. */
struct tls_client *
tls_client_get(const struct tls_client_input *in, struct tls_problem *problem);
struct tls_client *
tls_client_ref(struct tls_client *client);
void
tls_client_unref(struct tls_client *client);

/* A number that stands for these settings and that name, the same in every process. */
uint64_t
tls_client_identity(const struct tls_client *client, const char *name);

/* name: a host name (also sent as SNI), an IP address, or NULL for none (only where nothing is
 * verified). Takes a reference to client; has one reference itself. NULL: memory. */
struct tls_remote *
tls_remote_new(struct tls_client *client, const char *name);
struct tls_remote *
tls_remote_ref(struct tls_remote *remote);
void
tls_remote_unref(struct tls_remote *remote);
bool
tls_remote_is_for(const struct tls_remote *remote, const struct tls_client *client,
                  const char *name);

/* Begin the client side on a connected socket. alpn: the only protocol that is offered, NULL: none.
 * 0 or -1 (memory). The transport holds a reference to remote. */
int
transport_tls_connect(struct transport *t, int fd, struct tls_remote *remote, const char *alpn);

/* Did the peer want a certificate that we do not have? By then its own one has been verified. */
bool
transport_tls_was_asked(const struct transport *t);

/* Has TLS itself ended the connection: an alert, a record that is none? false: it lives, or the
 * socket has ended. */
bool
transport_tls_is_refused(const struct transport *t);

#endif
