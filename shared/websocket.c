/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket.c - the key of a WebSocket's opening handshake: see websocket.h.
 */
#include "shared/websocket.h"

#include <openssl/evp.h>

static const struct slice guid = {"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36}; /* RFC 6455 1.3 */

struct slice
websocket_write_key(const void *random, char *out)
{
    EVP_EncodeBlock((unsigned char *)out, random, WEBSOCKET_RANDOM_BYTES);
    return slice_of(out, WEBSOCKET_KEY_LEN);
}

static bool
hash(struct slice key, unsigned char *digest)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_done = md && EVP_DigestInit_ex(md, EVP_sha1(), NULL) == 1 &&
                   EVP_DigestUpdate(md, key.ptr, key.len) == 1 &&
                   EVP_DigestUpdate(md, guid.ptr, guid.len) == 1 &&
                   EVP_DigestFinal_ex(md, digest, NULL) == 1;
    EVP_MD_CTX_free(md);
    return is_done;
}

struct slice
websocket_write_accept(struct slice key, char *out)
{
    unsigned char digest[20];
    if (!hash(key, digest)) {
        return SLICE("");
    }
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof(digest));
    return slice_of(out, WEBSOCKET_ACCEPT_LEN);
}

bool
websocket_is_accept(struct slice accept, struct slice key)
{
    char expected[WEBSOCKET_ACCEPT_LEN + 1];
    struct slice right = websocket_write_accept(key, expected);
    return right.len > 0 && slice_eq(accept, right);
}
