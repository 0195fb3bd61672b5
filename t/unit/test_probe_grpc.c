/* SPDX-License-Identifier: Apache-2.0
 *
 * test_probe_grpc.c - what a gRPC health check asks, and how it judges answers. The backend is a
 * server session of nghttp2 that answers as a test says.
 */
#include <check.h>
#include <stdlib.h>

#include "master/probe_grpc.h"
#include "t/unit/suites.h"

/* ---- messages ---- */

struct message {
    const char *bytes;
    size_t len;
    int serving; /* -1: malformed */
};

#define M(text, serving) \
    { \
        text, sizeof(text) - 1, serving \
    }
static const struct message messages[] = {
    M("\0\0\0\0\2\x08\1", PROBE_SERVING),
    M("\0\0\0\0\2\x08\2", PROBE_NOT_SERVING),
    M("\0\0\0\0\2\x08\3", PROBE_SERVICE_UNKNOWN),
    M("\0\0\0\0\0", PROBE_SERVING_UNKNOWN),
    M("\0\0\0\0\3\x08\x81\0", PROBE_SERVING),         /* a longer varint than need be */
    M("\0\0\0\0\4\x08\2\x08\1", PROBE_SERVING),       /* the last one counts */
    M("\0\0\0\0\6\x10\7\x1a\0\x08\1", PROBE_SERVING), /* fields of a later version */
    M("\0\0\0\0\x0d\x11\1\2\3\4\5\6\7\x08\x15\1\2\3\x04", -1),
    M("\0\0\0\0\x10\x11\1\2\3\4\5\6\7\x08\x15\1\2\3\4\x08\1", PROBE_SERVING),
    M("\0\0\0\0\2\x08\x63", 99),
    M("", -1),
    M("\0\0\0\0", -1),
    M("\1\0\0\0\2\x08\1", -1),           /* compressed */
    M("\0\0\0\0\3\x08\1", -1),           /* shorter than it says */
    M("\0\0\0\0\1\x08\1", -1),           /* something behind it */
    M("\0\0\0\0\2\x08\1\0\0\0\0\0", -1), /* a second message */
    M("\0\0\0\0\1\x08", -1),
    M("\0\0\0\0\2\x08\x80", -1),
    M("\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", -1), /* beyond 64 bits */
    M("\0\0\0\0\2\x00\1", -1),                                         /* field 0 */
    M("\0\0\0\0\2\x0b\1", -1),                                         /* a group */
    M("\0\0\0\0\2\x0a\5", -1), /* a text longer than the rest */
};

START_TEST(message_is_read_strictly)
{
    const struct message *m = &messages[_i];
    uint64_t serving;
    bool is_good = probe_grpc_read_answer(slice_of(m->bytes, m->len), &serving);
    ck_assert_int_eq(is_good ? (int)serving : -1, m->serving);
}
END_TEST

START_TEST(request_names_the_service)
{
    char out[PROBE_SERVICE_MAX + 16], name[PROBE_SERVICE_MAX];
    ck_assert_uint_eq(probe_grpc_write_request(out, SLICE("")), 5);
    ck_assert_int_eq(memcmp(out, "\0\0\0\0\0", 5), 0);
    ck_assert_uint_eq(probe_grpc_write_request(out, SLICE("a.B")), 10);
    ck_assert_int_eq(memcmp(out, "\0\0\0\0\5\x0a\3a.B", 10), 0);
    memset(name, 'x', sizeof(name));
    ck_assert_uint_eq(probe_grpc_write_request(out, slice_of(name, 300)), 5 + 3 + 300);
    ck_assert_int_eq(memcmp(out, "\0\0\0\1\x2f\x0a\xac\2x", 9), 0);
}
END_TEST

/* ---- a backend ---- */

struct answer {
    const char *what;
    const char *status, *type; /* type NULL: none */
    const char *code;          /* grpc-status; NULL: none */
    const char *message;       /* NULL: trailers-only */
    size_t message_len;
    uint32_t reset; /* not 0: RST_STREAM in place of an answer */
    bool has_interim;
    const char *why; /* "": healthy */
};

struct server {
    nghttp2_session *session;
    const struct answer *answer;
    struct slice left;  /* of the message */
    char request[2048]; /* what came in the body */
    size_t request_len;
    char fields[1024]; /* name=value of the request, each with a newline */
};

#define GRPC    "application/grpc"
#define SERVING "\0\0\0\0\2\x08\1", 7
static const struct answer answers[] = {
    {"serving", "200", GRPC, "0", SERVING, 0, false, ""},
    {"behind an interim answer", "200", "application/grpc+proto", "0", SERVING, 0, true, ""},
    {"not serving", "200", GRPC, "0", "\0\0\0\0\2\x08\2", 7, 0, false, "not serving"},
    {"unknown status", "200", GRPC, "0", "\0\0\0\0\0", 5, 0, false, "not serving"},
    {"service unknown", "200", GRPC, "0", "\0\0\0\0\2\x08\3", 7, 0, false, "service unknown"},
    {"no such service", "200", GRPC, "5", NULL, 0, 0, false, "grpc-status NOT_FOUND"},
    {"no health", "200", GRPC, "12", NULL, 0, 0, false, "grpc-status UNIMPLEMENTED"},
    {"status after all", "200", GRPC, "14", SERVING, 0, false, "grpc-status UNAVAILABLE"},
    {"no such code", "200", GRPC, "200", SERVING, 0, false, "grpc-status OTHER"},
    {"no message", "200", GRPC, "0", NULL, 0, 0, false, "malformed message"},
    {"no code", "200", GRPC, NULL, SERVING, 0, false, "no grpc-status"},
    {"two messages", "200", GRPC, "0", "\0\0\0\0\2\x08\1\0\0\0\0\2\x08\1", 14, 0, false,
     "malformed message"},
    {"HTTP only", "200", "text/html", NULL, "hello", 5, 0, false, "the answer is not gRPC"},
    {"untyped", "200", NULL, "0", SERVING, 0, false, "the answer is not gRPC"},
    {"HTTP error", "503", "text/plain", NULL, "no", 2, 0, false, "status 503"},
    {"reset", NULL, NULL, NULL, NULL, 0, NGHTTP2_INTERNAL_ERROR, false, "reset: INTERNAL_ERROR"},
    {"refused", NULL, NULL, NULL, NULL, 0, NGHTTP2_REFUSED_STREAM, false, "reset: REFUSED_STREAM"},
};

static nghttp2_nv
field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

static ssize_t
read_message(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
             nghttp2_data_source *source, void *arg)
{
    struct server *server = arg;
    size_t n = server->left.len < room ? server->left.len : room;
    memcpy(out, server->left.ptr, n);
    server->left = slice_of(server->left.ptr + n, server->left.len - n);
    if (server->left.len == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (server->answer->code) {
            nghttp2_nv trailer = field("grpc-status", server->answer->code);
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            ck_assert_int_eq(nghttp2_submit_trailer(session, id, &trailer, 1), 0);
        }
    }
    return (ssize_t)n;
}

static void
answer_request(struct server *server, int32_t id)
{
    const struct answer *a = server->answer;
    nghttp2_nv fields[3] = {field(":status", a->status ? a->status : "")};
    size_t n = 1;
    if (a->reset) {
        nghttp2_submit_rst_stream(server->session, 0, id, a->reset);
        return;
    }
    if (a->has_interim) {
        nghttp2_nv interim = field(":status", "103");
        nghttp2_submit_headers(server->session, 0, id, NULL, &interim, 1, NULL);
    }
    if (a->type) {
        fields[n++] = field("content-type", a->type);
    }
    if (!a->message && a->code) {
        fields[n++] = field("grpc-status", a->code);
    }
    server->left = slice_of(a->message, a->message_len);
    nghttp2_data_provider body = {.read_callback = read_message};
    nghttp2_submit_response(server->session, id, fields, n, a->message ? &body : NULL);
}

static int
on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    if (frame->hd.stream_id != 0 && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        answer_request(arg, frame->hd.stream_id);
    }
    return 0;
}

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
          size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct server *server = arg;
    size_t used = strlen(server->fields);
    snprintf(server->fields + used, sizeof(server->fields) - used, "%s=%s\n", name, value);
    return 0;
}

static int
on_bytes(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len,
         void *arg)
{
    struct server *server = arg;
    ck_assert_uint_le(len, sizeof(server->request) - server->request_len);
    memcpy(server->request + server->request_len, bytes, len);
    server->request_len += len;
    return 0;
}

static void
open_server(struct server *server, const struct answer *answer)
{
    nghttp2_session_callbacks *calls;
    *server = (struct server){.answer = answer};
    nghttp2_session_callbacks_new(&calls);
    nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_bytes);
    nghttp2_session_server_new(&server->session, calls, server);
    nghttp2_session_callbacks_del(calls);
    nghttp2_submit_settings(server->session, 0, NULL, 0);
}

static struct conf_upstream upstream = {
    .health = {.type = CONF_HEALTH_GRPC, .path = "/my.Service", .timeout = 1500}};
static struct conf_backend backend = {.address = "127.0.0.1:50051", .upstream = &upstream};

static void
send_to_server(struct probe_h2 *h, struct server *server)
{
    for (struct slice out; (out = probe_h2_output(h)).len > 0;) {
        ssize_t n = nghttp2_session_mem_recv(server->session, (const uint8_t *)out.ptr, out.len);
        ck_assert_int_eq(n, (ssize_t)out.len);
    }
}

/* Bytes both ways, those of the server in pieces, until nobody has any. */
static void
talk(struct probe_h2 *h, struct server *server, size_t piece)
{
    const uint8_t *bytes;
    ssize_t len;
    send_to_server(h, server);
    while ((len = nghttp2_session_mem_send(server->session, &bytes)) > 0) {
        for (size_t at = 0; at < (size_t)len && h->verdict == PROBE_MORE; at += piece) {
            size_t left = (size_t)len - at;
            probe_h2_feed(h, (const char *)bytes + at, left < piece ? left : piece);
        }
        if (h->verdict == PROBE_MORE) {
            send_to_server(h, server);
        }
    }
}

START_TEST(answer_is_judged)
{
    const size_t pieces[] = {1, 7, 65536};
    for (int i = 0; i < 3; i++) {
        struct probe_grpc g;
        struct server server;
        ck_assert(probe_grpc_init(&g, &backend));
        open_server(&server, &answers[_i]);
        talk(&g.h2, &server, pieces[i]);
        bool is_good = answers[_i].why[0] == '\0';
        ck_assert_msg(g.h2.verdict == (is_good ? PROBE_GOOD : PROBE_BAD), "%s", answers[_i].what);
        ck_assert_str_eq(g.h2.why, answers[_i].why);
        nghttp2_session_del(server.session);
        probe_grpc_fini(&g);
    }
}
END_TEST

START_TEST(request_is_a_unary_call)
{
    struct probe_grpc g;
    struct server server;
    ck_assert(probe_grpc_init(&g, &backend));
    open_server(&server, &answers[0]);
    send_to_server(&g.h2, &server);
    ck_assert_str_eq(server.fields, ":method=POST\n"
                                    ":scheme=http\n"
                                    ":path=/grpc.health.v1.Health/Check\n"
                                    ":authority=127.0.0.1:50051\n"
                                    "user-agent=akashd-health\n"
                                    "te=trailers\n"
                                    "content-type=application/grpc\n"
                                    "grpc-timeout=1500m\n");
    ck_assert_uint_eq(server.request_len, 5 + 2 + strlen("my.Service"));
    ck_assert_int_eq(memcmp(server.request, "\0\0\0\0\x0c\x0a\x0amy.Service", 17), 0);
    nghttp2_session_del(server.session);
    probe_grpc_fini(&g);
}
END_TEST

static void
drain(struct probe_h2 *h)
{
    while (probe_h2_output(h).len > 0) {
    }
}

/* why NULL: not decided yet. */
static void
expect_after(const char *bytes, size_t len, bool is_end, const char *why)
{
    struct probe_grpc g;
    ck_assert(probe_grpc_init(&g, &backend));
    drain(&g.h2);
    for (size_t at = 0; at < len && g.h2.verdict == PROBE_MORE; at += 4096) {
        probe_h2_feed(&g.h2, bytes + at, len - at < 4096 ? len - at : 4096);
        drain(&g.h2);
    }
    if (g.h2.verdict == PROBE_MORE && is_end) {
        probe_h2_end(&g.h2);
    }
    ck_assert_int_eq(g.h2.verdict, why ? PROBE_BAD : PROBE_MORE);
    ck_assert_str_eq(g.h2.why, why ? why : "");
    probe_grpc_fini(&g);
}

START_TEST(what_is_no_http2_is_malformed)
{
    static const char http1[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    expect_after(http1, sizeof(http1) - 1, false, "malformed answer");
    expect_after("", 0, true, "closed without an answer");
    expect_after("\0\0\0\4\0\0\0\0\0", 9, true, "the answer was cut");
    expect_after("\0\0\0\4\0\0\0\0\0", 9, false, NULL); /* SETTINGS: well so far */
}
END_TEST

START_TEST(endless_answer_is_bounded)
{
    static char pings[17 * 5000 + 9] = "\0\0\0\4\0\0\0\0\0";
    for (size_t at = 9; at < sizeof(pings); at += 17) {
        memcpy(pings + at, "\0\0\x08\6\0\0\0\0\0", 9);
    }
    expect_after(pings, sizeof(pings), false, "the answer is too large");
}
END_TEST

START_TEST(large_message_is_refused)
{
    static char message[GRPC_PREFIX_BYTES + PROBE_MESSAGE_MAX + 1];
    const struct answer large = {.status = "200",
                                 .type = GRPC,
                                 .code = "0",
                                 .message = message,
                                 .message_len = sizeof(message)};
    struct probe_grpc g;
    struct server server;
    ck_assert(probe_grpc_init(&g, &backend));
    open_server(&server, &large);
    talk(&g.h2, &server, 65536);
    ck_assert_str_eq(g.h2.why, "the answer's message is too large");
    nghttp2_session_del(server.session);
    probe_grpc_fini(&g);
}
END_TEST

Suite *
probe_grpc_suite(void)
{
    Suite *suite = suite_create("probe_grpc");
    TCase *tc = tcase_create("probe_grpc");
    tcase_add_loop_test(tc, message_is_read_strictly, 0, sizeof(messages) / sizeof(messages[0]));
    tcase_add_test(tc, request_names_the_service);
    tcase_add_loop_test(tc, answer_is_judged, 0, sizeof(answers) / sizeof(answers[0]));
    tcase_add_test(tc, request_is_a_unary_call);
    tcase_add_test(tc, what_is_no_http2_is_malformed);
    tcase_add_test(tc, endless_answer_is_bounded);
    tcase_add_test(tc, large_message_is_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
