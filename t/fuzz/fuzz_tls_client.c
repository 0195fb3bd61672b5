/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tls_client.c - the bytes of a backend that is asked for TLS, in pieces of its choosing: each
 * piece is led by a byte that says its length. Whatever comes, the handshake ends with the bytes.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "shared/tls_client.h"
#include "t/fuzz/fuzz.h"

/* It lets every certificate through, so that as much as can be is parsed; it stays until the
 * process ends. */
static struct tls_remote *
make_remote(void)
{
    struct tls_client_input in = {.min_version = 0x0303};
    struct tls_problem problem;
    struct tls_client *client = tls_client_get(&in, &problem);
    FUZZ_EXPECT(client != NULL);
    struct tls_remote *remote = tls_remote_new(client, "a.test");
    FUZZ_EXPECT(remote != NULL);
    tls_client_unref(client);
    return remote;
}

static void
drain(int fd)
{
    char buf[4096];
    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0) {
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct tls_remote *remote;
    struct transport t;
    int fds[2];
    if (!remote) {
        remote = make_remote();
    }
    FUZZ_EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    FUZZ_EXPECT(transport_tls_connect(&t, fds[0], remote, "http/1.1") == 0);
    int result = t.ops->handshake(&t);
    FUZZ_EXPECT(result == IO_AGAIN);
    while (result == IO_AGAIN && len > 0) {
        size_t piece = bytes[0];
        piece = piece < len - 1 ? piece : len - 1;
        FUZZ_EXPECT(piece == 0 || write(fds[1], bytes + 1, piece) == (ssize_t)piece);
        bytes += 1 + piece;
        len -= 1 + piece;
        result = t.ops->handshake(&t);
        drain(fds[1]);
    }
    if (result == IO_AGAIN) {
        shutdown(fds[1], SHUT_WR);
        result = t.ops->handshake(&t);
    }
    FUZZ_EXPECT(result == IO_ERROR); /* no input knows the client's random number */
    FUZZ_EXPECT(transport_tls_error(&t)[0] != '\0');
    FUZZ_EXPECT(t.ops->handshake(&t) == IO_ERROR);
    t.ops->shutdown(&t);
    t.ops->fini(&t);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
