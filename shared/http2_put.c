/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_put.c - a message becomes an array for nghttp2 (RFC 9113 8.2, 8.3): see http2.h.
 */
#include "shared/http2.h"

/* nghttp2 takes what it does not write to without const. */
static nghttp2_nv
nv_of(struct slice name, struct slice value, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)name.ptr, (uint8_t *)value.ptr, name.len, value.len, flags};
}

/* name is static. */
static nghttp2_nv
nv_static(struct slice name, struct slice value)
{
    return nv_of(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static nghttp2_nv
nv_field(const struct http_field *f)
{
    /* A value that never comes again would only push others out of the peer's table. */
    bool is_indexed = !f->is_secret && f->id != HTTP_FIELD_X_REQUEST_ID;
    uint8_t flags = is_indexed ? NGHTTP2_NV_FLAG_NONE : NGHTTP2_NV_FLAG_NO_INDEX;
    if (f->id == HTTP_FIELD_OTHER) {
        return nv_of(f->name, f->value, flags);
    }
    return nv_of(http_field_name((enum http_field_id)f->id), f->value,
                 flags | NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

/* A tunnel's key and its answer are a matter of HTTP/1 (RFC 8441 5). */
static bool
is_left_out(const struct http_field *f, bool is_tunnel)
{
    return f->drop || f->id == HTTP_FIELD_HOST || http_is_hop_by_hop(f) ||
           (is_tunnel &&
            (f->id == HTTP_FIELD_SEC_WEBSOCKET_KEY || f->id == HTTP_FIELD_SEC_WEBSOCKET_ACCEPT));
}

static size_t
put_fields(const struct http_msg *m, bool is_tunnel, nghttp2_nv *out)
{
    size_t n = 0;
    for (size_t i = 0; i < m->nfields; i++) {
        const struct http_field *f = &m->fields[i];
        if (!is_left_out(f, is_tunnel)) {
            out[n++] = nv_field(f);
        }
    }
    return n;
}

size_t
http2_put_request(const struct http_msg *m, struct slice scheme, nghttp2_nv *out)
{
    const struct http_field *host = http_msg_find(m, HTTP_FIELD_HOST);
    bool is_upgrade = m->upgrade.len > 0;
    bool is_tunnel = m->method == HTTP_CONNECT;
    size_t n = 0;
    out[n++] = nv_static(SLICE(":method"), is_upgrade ? SLICE("CONNECT") : m->method_text);
    if (is_upgrade) {
        out[n++] = nv_static(SLICE(":protocol"), m->upgrade);
    }
    if (!is_tunnel) {
        out[n++] = nv_static(SLICE(":scheme"), scheme);
    }
    out[n++] = nv_static(SLICE(":authority"), host ? host->value : m->authority);
    if (!is_tunnel) {
        out[n++] = nv_static(SLICE(":path"), m->target);
    }
    n += put_fields(m, is_upgrade, out + n);
    if (m->seen & HTTP_SEEN_TRAILERS) {
        out[n++] = nv_static(SLICE("te"), SLICE("trailers"));
    }
    return n;
}

size_t
http2_put_response(const struct http_msg *m, char status[3], nghttp2_nv *out)
{
    unsigned code = m->status == 101 ? 200 : m->status; /* RFC 8441 5: a tunnel begins with 2xx */
    for (int i = 2; i >= 0; i--, code /= 10) {
        status[i] = (char)('0' + code % 10);
    }
    out[0] = nv_static(SLICE(":status"), slice_of(status, 3));
    return 1 + put_fields(m, m->status == 101, out + 1);
}

size_t
http2_put_trailers(const struct http_msg *m, nghttp2_nv *out)
{
    size_t n = 0;
    for (size_t i = 0; i < m->nfields; i++) {
        const struct http_field *f = &m->fields[i];
        if (!f->drop && http_is_trailer_allowed(f)) {
            out[n++] = nv_field(f);
        }
    }
    return n;
}
