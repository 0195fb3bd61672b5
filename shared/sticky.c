/* SPDX-License-Identifier: Apache-2.0
 *
 * sticky.c - cookies that name a backend: see sticky.h.
 */
#include "shared/sticky.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define VERSION   1
#define MAC_BYTES 16

struct cookie {
    uint8_t version;
    uint8_t tag[8], expires[8], mac[MAC_BYTES];
};
_Static_assert(sizeof(struct cookie) * 4 / 3 == STICKY_LEN, "a cookie is whole characters");

/* HMAC-SHA256 over the bytes. false: no memory. */
static bool
authenticate(struct slice secret, const void *bytes, size_t len, uint8_t mac[EVP_MAX_MD_SIZE])
{
    return HMAC(EVP_sha256(), secret.ptr, (int)secret.len, bytes, len, mac, NULL) != NULL;
}

uint64_t
sticky_tag(struct slice secret, const char *upstream, const char *backend)
{
    /* Names and ids have no NUL, so that no two pairs look alike; and no cookie begins like this.
     */
    char text[512];
    size_t upstream_len = strlen(upstream) + 1, backend_len = strlen(backend) + 1;
    uint8_t mac[EVP_MAX_MD_SIZE];
    uint64_t tag = 0;
    if (1 + upstream_len + backend_len > sizeof(text)) {
        return 0;
    }
    text[0] = 't';
    memcpy(text + 1, upstream, upstream_len);
    memcpy(text + 1 + upstream_len, backend, backend_len);
    if (authenticate(secret, text, 1 + upstream_len + backend_len, mac)) {
        memcpy(&tag, mac, sizeof(tag));
        tag = be64toh(tag);
        tag += tag == 0;
    }
    return tag;
}

/* ---- base64url ---- */

static void
encode(const uint8_t *bytes, size_t len, char *out)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6) {
            *out++ = letters[three >> shift & 63];
        }
    }
}

static int
digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static bool
decode(struct slice text, uint8_t *out)
{
    for (size_t i = 0; i < text.len; i += 4) {
        uint32_t three = 0;
        for (size_t k = 0; k < 4; k++) {
            int digit = digit_of(text.ptr[i + k]);
            if (digit < 0) {
                return false;
            }
            three = three << 6 | (uint32_t)digit;
        }
        *out++ = (uint8_t)(three >> 16);
        *out++ = (uint8_t)(three >> 8);
        *out++ = (uint8_t)three;
    }
    return true;
}

/* ---- the cookie ---- */

bool
sticky_write(struct slice secret, uint64_t tag, uint64_t expires_s, char *out)
{
    struct cookie cookie = {.version = VERSION};
    uint8_t mac[EVP_MAX_MD_SIZE];
    uint64_t big = htobe64(tag);
    memcpy(cookie.tag, &big, sizeof(big));
    big = htobe64(expires_s);
    memcpy(cookie.expires, &big, sizeof(big));
    if (!authenticate(secret, &cookie, offsetof(struct cookie, mac), mac)) {
        return false;
    }
    memcpy(cookie.mac, mac, MAC_BYTES);
    encode((const uint8_t *)&cookie, sizeof(cookie), out);
    return true;
}

bool
sticky_read(struct slice secret, struct slice value, uint64_t now_s, uint64_t *tag,
            uint64_t *expires_s)
{
    struct cookie cookie;
    uint8_t mac[EVP_MAX_MD_SIZE];
    if (value.len != STICKY_LEN || !decode(value, (uint8_t *)&cookie) ||
        cookie.version != VERSION ||
        !authenticate(secret, &cookie, offsetof(struct cookie, mac), mac) ||
        CRYPTO_memcmp(mac, cookie.mac, MAC_BYTES) != 0) {
        return false;
    }
    memcpy(tag, cookie.tag, sizeof(*tag));
    *tag = be64toh(*tag);
    memcpy(expires_s, cookie.expires, sizeof(*expires_s));
    *expires_s = be64toh(*expires_s);
    return *expires_s == 0 || now_s < *expires_s;
}

/* ---- the field ---- */

size_t
sticky_strip(struct slice field, struct slice name, char *out, unsigned *nremoved)
{
    size_t len = 0;
    while (field.len > 0) {
        const char *end = memchr(field.ptr, ';', field.len);
        size_t n = end ? (size_t)(end - field.ptr) : field.len;
        struct slice pair = slice_trim(slice_of(field.ptr, n));
        n += end != NULL;
        field = slice_of(field.ptr + n, field.len - n);
        if (pair.len > name.len && memcmp(pair.ptr, name.ptr, name.len) == 0 &&
            pair.ptr[name.len] == '=') {
            (*nremoved)++;
        } else if (pair.len > 0) {
            len += len > 0 ? (memcpy(out + len, "; ", 2), (size_t)2) : 0;
            memcpy(out + len, pair.ptr, pair.len);
            len += pair.len;
        }
    }
    return len;
}
