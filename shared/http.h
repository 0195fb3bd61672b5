/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - an HTTP message without its wire form: what HTTP/1 and HTTP/2 both are turned into.
 *
 * A message owns nothing. Its slices point into the buffer it was parsed from and live as long as
 * that buffer; its field array belongs to the caller. All functions here are pure.
 */
#ifndef SHARED_HTTP_H
#define SHARED_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/reason.h"
#include "shared/slice.h"

/*    enum name          method   idempotent (RFC 9110 9.2.2) */
#define HTTP_METHODS(X) \
    X(GET, 1) \
    X(HEAD, 1) \
    X(POST, 0) \
    X(PUT, 1) \
    X(DELETE, 1) \
    X(OPTIONS, 1) \
    X(PATCH, 0) \
    X(TRACE, 1) \
    X(CONNECT, 0)

enum http_method {
    HTTP_METHOD_OTHER, /* any other token: method_text has it; not idempotent */
#define HTTP_METHOD_ENUM(name, idempotent) HTTP_##name,
    HTTP_METHODS(HTTP_METHOD_ENUM)
#undef HTTP_METHOD_ENUM
};

/* Fields that akashd itself looks at: a row here is all that a new one takes. */
#define HTTP_F_HOP     1 /* hop-by-hop, always removed (RFC 9110 7.6.1) */
#define HTTP_F_TRAILER 2 /* forbidden in trailers (RFC 9110 6.5.1) */
#define HTTP_F_END     4 /* end to end: Connection may not name it (RFC 9110 7.6.1) */
#define HTTP_FIELDS(X) \
    X(CONNECTION, "connection", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(KEEP_ALIVE, "keep-alive", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(PROXY_CONNECTION, "proxy-connection", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(TE, "te", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(UPGRADE, "upgrade", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(HTTP2_SETTINGS, "http2-settings", HTTP_F_HOP | HTTP_F_TRAILER) \
    X(TRANSFER_ENCODING, "transfer-encoding", HTTP_F_HOP | HTTP_F_TRAILER | HTTP_F_END) \
    X(CONTENT_LENGTH, "content-length", HTTP_F_TRAILER | HTTP_F_END) \
    X(HOST, "host", HTTP_F_TRAILER | HTTP_F_END) \
    X(TRAILER, "trailer", HTTP_F_TRAILER) \
    X(EXPECT, "expect", HTTP_F_TRAILER | HTTP_F_END) \
    X(AUTHORIZATION, "authorization", HTTP_F_TRAILER | HTTP_F_END) \
    X(COOKIE, "cookie", HTTP_F_TRAILER | HTTP_F_END) \
    X(SET_COOKIE, "set-cookie", HTTP_F_TRAILER | HTTP_F_END) \
    X(CONTENT_ENCODING, "content-encoding", HTTP_F_TRAILER | HTTP_F_END) \
    X(CONTENT_TYPE, "content-type", HTTP_F_TRAILER | HTTP_F_END) \
    X(CONTENT_RANGE, "content-range", HTTP_F_TRAILER | HTTP_F_END) \
    X(CACHE_CONTROL, "cache-control", HTTP_F_TRAILER | HTTP_F_END) \
    X(RANGE, "range", HTTP_F_TRAILER | HTTP_F_END) \
    X(LOCATION, "location", HTTP_F_TRAILER | HTTP_F_END) \
    X(DATE, "date", HTTP_F_TRAILER) \
    X(SERVER, "server", 0) \
    X(USER_AGENT, "user-agent", 0) \
    X(REFERER, "referer", 0) \
    X(FORWARDED, "forwarded", HTTP_F_TRAILER | HTTP_F_END) \
    X(X_FORWARDED_FOR, "x-forwarded-for", HTTP_F_TRAILER | HTTP_F_END) \
    X(X_FORWARDED_PROTO, "x-forwarded-proto", HTTP_F_TRAILER | HTTP_F_END) \
    X(X_FORWARDED_HOST, "x-forwarded-host", HTTP_F_TRAILER | HTTP_F_END) \
    X(X_REAL_IP, "x-real-ip", HTTP_F_TRAILER | HTTP_F_END) \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key", HTTP_F_TRAILER | HTTP_F_END) \
    X(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept", HTTP_F_TRAILER | HTTP_F_END) \
    X(X_REQUEST_ID, "x-request-id", HTTP_F_TRAILER | HTTP_F_END) \
    X(GRPC_STATUS, "grpc-status", 0) \
    X(GRPC_TIMEOUT, "grpc-timeout", HTTP_F_TRAILER | HTTP_F_END)

enum http_field_id {
    HTTP_FIELD_OTHER,
#define HTTP_FIELD_ENUM(id, name, flags) HTTP_FIELD_##id,
    HTTP_FIELDS(HTTP_FIELD_ENUM)
#undef HTTP_FIELD_ENUM
        HTTP_FIELD_COUNT
};

struct http_field {
    struct slice name;  /* as received; compare without case */
    struct slice value; /* without white space around it */
    uint8_t id;         /* enum http_field_id */
    bool drop;          /* not forwarded: set by http_strip_hop_by_hop and the forwarding rules */
    bool is_plain;  /* HTTP/1 only: the wire form is exactly name ": " value CRLF, with the bytes
                       adjacent in memory, so that a run of fields may be copied whole */
    bool is_secret; /* HTTP/2: never indexed (RFC 7541 7.1.3), and so passed on */
};

enum http_body_kind {
    HTTP_BODY_NONE,    /* no body: length 0 or a message that cannot have one */
    HTTP_BODY_LENGTH,  /* msg->length bytes, more than 0 */
    HTTP_BODY_CHUNKED, /* RFC 9112 7.1 */
    HTTP_BODY_CLOSE    /* until the connection closes; responses only (RFC 9112 6.3) */
};

/* What http1_parse_* reads about the message while it goes over the fields; http_frame_* judges it.
 */
#define HTTP_SEEN_LENGTH       0x001 /* at least one Content-Length */
#define HTTP_SEEN_CODING       0x002 /* at least one Transfer-Encoding */
#define HTTP_SEEN_CHUNKED      0x004 /* ... and it is exactly one "chunked" in all */
#define HTTP_SEEN_CLOSE        0x008 /* Connection: close */
#define HTTP_SEEN_KEEP_ALIVE   0x010 /* Connection: keep-alive */
#define HTTP_SEEN_UPGRADE      0x020 /* Connection: upgrade, and an Upgrade field */
#define HTTP_SEEN_CONTINUE     0x040 /* Expect: 100-continue */
#define HTTP_SEEN_OTHER_EXPECT 0x080 /* an Expect that is anything else */
#define HTTP_SEEN_OPTIONS \
    0x100 /* Connection names fields other than close, keep-alive, upgrade, te */
#define HTTP_SEEN_TRAILERS 0x200 /* TE: trailers */

struct http_msg {
    uint8_t minor;      /* HTTP/1.minor: 0 or 1; an HTTP/2 message has 1 */
    uint8_t method;     /* enum http_method; requests */
    uint16_t status;    /* responses */
    uint16_t seen;      /* HTTP_SEEN_* */
    uint8_t body;       /* enum http_body_kind, by http_frame_* */
    bool is_keep_alive; /* the sender lets the connection live on (RFC 9112 9.3), by http_frame_* */
    uint64_t length;    /* Content-Length, where HTTP_SEEN_LENGTH; HTTP_BODY_LENGTH */
    struct slice method_text;
    struct slice scheme; /* of an absolute-form target, else empty */
    /* host[:port] that the request is for, from the target or else from Host, as received; empty
     * for an HTTP/1.0 request without either. A Host field that says otherwise than the target has
     * had its value replaced (RFC 9112 3.2.2). */
    struct slice authority;
    /* What is forwarded: path and query, begins with '/'; or "*" (OPTIONS); of CONNECT its
     * host:port. Not in the buffer where an absolute-form target has no path. */
    struct slice target;
    struct slice path;   /* the part of target before '?'; empty for CONNECT */
    struct slice phrase; /* responses: the reason phrase */
    /* The protocol that the request asks to become, or that a 101 has become: Upgrade with
     * Connection: upgrade, or the :protocol of an extended CONNECT (RFC 8441), which otherwise
     * looks like a GET answered by 101. Empty: none that may be passed on, see
     * http_upgrade_protocol. */
    struct slice upgrade;
    struct http_field *fields;
    uint16_t nfields;
    uint16_t max_fields; /* room in fields, = the limit header_count */
};

struct http_limits {
    uint32_t header_bytes; /* of the whole head, request line included */
    uint16_t header_count;
};

#define HTTP_METHOD_MAX     32
#define HTTP_FIELD_NAME_MAX 256
/* The longest reg-name in an authority, and how many fields Connection may name in all. */
#define HTTP_HOST_MAX    255
#define HTTP_OPTIONS_MAX 32

/* The name of a known field in lower case; "" for HTTP_FIELD_OTHER. */
struct slice
http_field_name(enum http_field_id id);
/* Case does not count. */
enum http_field_id
http_field_find_id(struct slice name);

enum http_method
http_method_from(struct slice text);
bool
http_method_is_idempotent(enum http_method m);

/* The first field with that id that is not dropped, or NULL. */
const struct http_field *
http_msg_find(const struct http_msg *m, enum http_field_id id);

/* Is s a token (RFC 9110 5.6.2; not empty), a field value (5.5: VCHAR, SP, HTAB, obs-text; may be
 * empty), made of what a request target may hold (visible ASCII except '#'; not empty)? */
bool
http_is_token(struct slice s);
bool
http_is_field_value(struct slice s);
bool
http_is_target(struct slice s);

/* The protocol that the value of an Upgrade field names (RFC 9110 7.8: name or name/version), or
 * empty: for a list, of which a backend could choose what we do not know of, and for HTTP itself
 * (h2c, TLS), inside of which requests would pass unseen. */
struct slice
http_upgrade_protocol(struct slice value);

/* Is that protocol the one of RFC 6455? */
bool
http_is_websocket(struct slice upgrade);

/* The next element of a comma-separated list (RFC 9110 5.6.1) without white space around it; *list
 * is what follows. Empty elements are skipped; an empty slice is the end. Quoted strings are not
 * known: for lists of tokens. */
struct slice
http_list_next(struct slice *list);

/* Host or authority: reg-name, IPv4 or [IPv6], optional :port of 0 to 65535, which may be empty;
 * no userinfo; may be empty only where may_be_empty. RFC 3986 3.2, without what can be read in two
 * ways: percent escapes, ',' (two Hosts merged), IPvFuture, zones. */
bool
http_is_authority(struct slice s, bool may_be_empty);

/* THE framing decision of a request (RFC 9112 6.1, 6.3) from seen, length and minor: one table of
 * cases. Sets body and is_keep_alive. 0, or the reason: bad_request (close afterwards) or
 * unsupported (a list of codings that ends in chunked). */
enum reason
http_frame_request(struct http_msg *m);

/* The same for a response to a request with that method. 1xx, 204, 304 and answers to HEAD have no
 * body whatever they say (their Content-Length stays a field). 0, or bad_response. A 101 is framed
 * as NONE: the caller decides whether it was asked for. */
enum reason
http_frame_response(struct http_msg *m, enum http_method request_method);

/* Set drop on connection-specific fields (HTTP_F_HOP) and on those that Connection names (RFC 9110
 * 7.6.1). To name one of HTTP_F_END, without which the message would change its meaning, or more
 * than HTTP_OPTIONS_MAX is malformed: returns false, for bad_request or bad_response (a response
 * may name Transfer-Encoding); what else is named has been dropped up to that number.
 * Transfer-Encoding is always dropped, Content-Length with HTTP_BODY_CHUNKED and in 1xx and 204
 * (RFC 9110 8.6): the sender writes its own framing. After framing. */
bool
http_strip_hop_by_hop(struct http_msg *m);

/* Is it connection-specific (HTTP_F_HOP)? */
bool
http_is_hop_by_hop(const struct http_field *f);

/* May this field be forwarded in a trailer section? */
bool
http_is_trailer_allowed(const struct http_field *f);

/* What a path has come to. Only one with dot segments must not be forwarded as it was. */
enum http_path {
    HTTP_PATH_BAD = 0,   /* "%00", a broken percent escape or '#': for bad_request */
    HTTP_PATH_NORMAL,    /* nothing has changed */
    HTTP_PATH_UNESCAPED, /* the same in other letters */
    HTTP_PATH_RESOLVED   /* it had dot segments */
};

/* Give an origin-form path the form in which it is compared: escapes of unreserved bytes become
 * these (RFC 3986 6.2.2.2: "%61dmin" is "admin"), then dot segments are resolved (5.2.4: ".." at the
 * root stays there). Other escapes stay, "%2F" and "%5C" among them.
 * out has room for path.len bytes. *result is path itself when nothing changed, else lies in out. */
enum http_path
http_path_normalize(struct slice path, char *out, struct slice *result);

/* "Thu, 24 Nov 2026 14:00:00 GMT" into buf of at least 30 bytes (RFC 9110 5.6.7). */
void
http_date(uint64_t wall_s, char *buf);

/* The phrase of a status, for what comes without one: answers of akashd itself and of HTTP/2
 * backends. "" when it has none. */
struct slice
http_status_phrase(int status);

#endif
