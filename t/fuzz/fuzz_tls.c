/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tls.c - the bytes of a client that begins a TLS connection, in pieces of its choosing: each
 * piece is led by a byte that says its length. Whatever comes, the handshake ends with the bytes.
 */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/tls.h"
#include "t/fuzz/fuzz.h"

static struct slice
pem_text(BIO *pem)
{
    char *text = NULL;
    long len = BIO_get_mem_data(pem, &text);
    return slice_of(text, (size_t)len);
}

/* A server with a certificate that is signed by its own key; it stays until the process ends. */
static struct tls_server *
make_server(void)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *cert = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    BIO *cert_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(cert_pem, cert);
    PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL);
    struct tls_cert_input pair = {pem_text(cert_pem), pem_text(key_pem), "cert", "key"};
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    struct tls_server_input in = {.listener = "fuzz",
                                  .certs = &pair,
                                  .ncerts = 1,
                                  .min_version = 0x0303,
                                  .alpn = alpn,
                                  .tickets = true};
    struct tls_problem problem;
    struct tls_server *srv = tls_server_get(&in, &problem);
    FUZZ_EXPECT(srv != NULL);
    EVP_PKEY_free(key);
    X509_free(cert);
    BIO_free(cert_pem);
    BIO_free(key_pem);
    return srv;
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
    static struct tls_server *srv;
    struct transport t;
    int fds[2];
    if (!srv) {
        srv = make_server();
    }
    FUZZ_EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    FUZZ_EXPECT(transport_tls_accept(&t, fds[0], srv) == 0);
    int result = IO_AGAIN;
    while (result == IO_AGAIN && len > 0) {
        size_t piece = bytes[0];
        piece = piece < len - 1 ? piece : len - 1;
        FUZZ_EXPECT(piece == 0 || write(fds[1], bytes + 1, piece) == (ssize_t)piece);
        bytes += 1 + piece;
        len -= 1 + piece;
        result = t.ops->handshake(&t);
        FUZZ_EXPECT(result != IO_AGAIN || !t.ops->pending(&t));
        drain(fds[1]);
    }
    if (result == IO_AGAIN) {
        shutdown(fds[1], SHUT_WR);
        result = t.ops->handshake(&t);
    }
    FUZZ_EXPECT(result == IO_ERROR); /* no input knows the server's random number */
    FUZZ_EXPECT(transport_tls_error(&t)[0] != '\0');
    FUZZ_EXPECT(t.ops->handshake(&t) == IO_ERROR);
    t.ops->shutdown(&t);
    t.ops->fini(&t);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
