/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h - one exchange, from the head of its request (tcp: from its connection) to its log line.
 *
 * A stream has two ends: the client's and the upstream's. A protocol file owns its end's connection
 * and translates between bytes and messages; what is common to all protocols (routing, choosing,
 * trying again, counting, logging, failing) happens in stream.c, once.
 *
 * The client end makes the stream with stream_new() and the stream lives until stream.c ends it
 * with finish or abort of both ends; its memory is freed at the end of the loop turn.
 */
#ifndef WORKER_STREAM_H
#define WORKER_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/http.h"
#include "shared/list.h"
#include "shared/reason.h"
#include "shared/slice.h"
#include "worker/conn.h"
#include "worker/listener.h"

#define STREAM_BYTES      4096 /* of an HTTP stream with its arena */
#define STREAM_TCP_ARENA  40   /* names that are not long, for the log of a tunnel */
#define STREAM_MAX_TRIES  11   /* attempts: the first, and retry.attempts */
#define STREAM_MAX_RESENT 10   /* connections that may die, or refuse, under the same request */
#define STREAM_MAX_RACES  16   /* for the last place at a backend */
#define STREAM_ID_LEN     32

struct stream;
struct backend;
struct http2_stream;

struct end;
/* e is the end itself: the client's or the server's of s. */
struct end_ops {
    /* Write the head of the message that came from the other end. After a 101 the end carries raw
     * bytes, both ways. */
    void (*send_head)(struct stream *s, struct end *e, struct http_msg *m);
    /* Write body bytes (tcp: bytes). Takes all; sets is_blocked of the end when no more should
     * come. */
    void (*send_body)(struct stream *s, struct end *e, struct slice bytes);
    /* The message is complete. trailers may be NULL. tcp: half-close. */
    void (*send_end)(struct stream *s, struct end *e, struct http_msg *trailers);
    /* The other end takes bytes again: go on reading. */
    void (*recv_body)(struct stream *s, struct end *e);
    /* Something must come from the peer within timeout_ms from now, or the end fails the stream.
     * 0: no limit any more. */
    void (*expect)(struct stream *s, struct end *e, uint32_t timeout_ms);
    /* From now on neither the body that it receives nor the one that it sends has a deadline at
     * this end: the stream has one for silence. NULL: those of the end stay. */
    void (*relax)(struct stream *s, struct end *e);
    /* The exchange ended well: keep the connection or close it, and forget the stream. */
    void (*finish)(struct stream *s, struct end *e);
    /* The exchange failed: see that the peer cannot take what it got for complete; forget the
     * stream. The client end writes an answer when none has begun and the reason has a status. */
    void (*abort)(struct stream *s, struct end *e, enum reason why);
};

struct end {
    const struct end_ops *ops; /* NULL: no end there */
    struct conn *conn;         /* that it has for itself; NULL: it shares one (HTTP/2) */
    struct http2_stream *h2;   /* its part of a shared one */
    uint64_t bytes;            /* body bytes that were sent through it */
    bool is_blocked;   /* what it was given waits beyond its connection: see end_is_blocked */
    bool is_recv_done; /* its own message has come in whole */
    bool is_send_done; /* the other's message has been given to it whole */
};

enum stream_state {
    STREAM_HEAD,    /* request head is arriving */
    STREAM_PICK,    /* choosing a backend */
    STREAM_CONNECT, /* connect with the backend */
    STREAM_SEND,    /* request is being sent; no byte of an answer yet */
    STREAM_FORWARD, /* the answer's head has passed; bytes move both ways */
    STREAM_DONE     /* logged; freed at the end of the loop turn */
};

/* What its rate limits have to say. */
struct limit_said {
    uint32_t limit; /* requests at once; 0: nothing */
    uint32_t remaining, reset_s, retry_s;
};

/* What only an HTTP exchange has. */
struct stream_http {
    struct http_msg req;
    struct addr_ip peer_ip; /* of the connection: a proxy's, where client_ip is not */
    struct limit_said limit;
    bool is_peer_trusted;    /* what it says of the client and of itself is believed */
    struct slice request_id; /* the one that counts */
    char id[STREAM_ID_LEN];  /* X-Request-ID when we made it */
    uint64_t sent_us;        /* request sent whole */
    uint64_t head_us;        /* head of the answer came */
    char *head;              /* request head bytes: in the arena, or of its own when large */
    uint32_t head_len, head_cap;
    struct list waiting;   /* for a shared connection that is being made, or for the next attempt */
    uint64_t retry_at_us;  /* when that begins; 0: it does not wait for it */
    struct buf *sent_body; /* kept for it: as many bytes as were sent, or it cannot be */
    bool has_trailers;     /* have been sent behind the body */
    struct timer timer;    /* at the earlier of these two */
    uint64_t total_due_ms; /* end of the whole exchange; 0: none */
    uint64_t quiet_due_ms; /* end of a silence */
    uint32_t quiet_ms;     /* how long one may be; 0: any */
    const struct conf_route *route; /* of conf */
    struct slice target;         /* as the client has sent it, where req has another one */
    struct slice spelled;        /* its path, where that has needless escapes: see forward_spelled() */
    struct conf_backend *sticky; /* whom the client's cookie is for; NULL: nobody */
    bool is_sticky_old;          /* that cookie is to be renewed */
    uint8_t grpc_code;           /* is_grpc: what the answer says */
};

struct stream {
    struct list link; /* worker.streams */
    enum stream_state state;
    enum reason reason; /* why it failed; REASON_none */
    struct listener *listener;
    struct conf *conf; /* pinned; NULL once a tunnel runs: it copied what it needs */
    struct conf_listener *conf_listener;
    struct conf_upstream *upstream;
    const struct conf_policy *policy; /* the upstream's, or the route's; NULL as upstream is */
    struct conf_pool *pool;
    struct slice upstream_name, backend_name; /* for the log: they outlive conf */
    uint64_t bytes_in;                        /* body bytes for backends */
    struct conf_backend *backend;             /* chosen; NULL before and between */
    struct backend *taken;                    /* whose active gauge we hold */
    struct end client, server;
    uint16_t status;                  /* that the client got */
    uint16_t tries;                   /* attempts that failed; at its end all */
    uint16_t tried[STREAM_MAX_TRIES]; /* indexes of their backends */
    uint8_t resent;                   /* how often, because a connection failed it */
    uint8_t nraces;                   /* places that another worker took at the last moment */
    bool has_head;                    /* an answer's head has been given to the client */
    bool is_tcp;                      /* from the first byte */
    bool is_tunnel;    /* raw bytes both ways: tcp, or an HTTP exchange after a 101 */
    bool is_http2;     /* the client speaks HTTP/2 */
    bool is_grpc;      /* see grpc.h */
    bool is_counted;   /* among the requests in flight of its listener */
    bool wants_fresh;  /* take no idle connection: one has just failed us */
    bool is_resumed;   /* the client's TLS session is another connection's */
    bool is_on_reused; /* the server connection came from the idle list */
    uint64_t cut_ms;   /* a tunnel whose listener or backend has left the configuration: its end; 0:
                          none */
    struct list queue_link; /* queue.c */
    uint64_t queued_us;     /* since when it waits there; 0: it does not */
    uint64_t queue_us;      /* how long it has waited */
    uint64_t begin_us;      /* monotonic: head complete, tcp: accepted */
    uint64_t first_us;      /* first byte of the request */
    uint64_t connect_us;    /* connect began; 0: an idle connection was used */
    uint64_t connected_us;
    struct addr_ip client_ip;
    uint32_t permit;              /* of the backend's breaker; 0: an ordinary request */
    struct slice tls_version;     /* of the client; empty: none */
    struct splice_pipe *pipes[2]; /* splice.c: to the client, to the server */
    struct stream_block *blocks;  /* what did not fit into the arena */
    struct stream_http *http;     /* NULL: tcp */
    char *arena;
    uint32_t arena_size, arena_used;
};

/* A stream of a client connection; pins the current conf. NULL: no memory. */
struct stream *
stream_new_http(struct listener *l, struct conn *client, const struct end_ops *ops);
struct stream *
stream_new_tcp(struct listener *l, struct conn *client, const struct end_ops *ops);
/* len bytes that live as long as the stream. NULL: no memory. */
void *
stream_alloc(struct stream *s, size_t len);
/* Free the streams that are done; at the end of a loop turn. */
void
stream_reap(void);

/* The request's head is complete in s->req: route it and find it a backend. http. */
void
stream_begin(struct stream *s);
/* The same for a tcp connection, whose upstream and policy are set. */
void
stream_begin_tcp(struct stream *s);

/* upstream.c found a connection; s->server is set. */
void
stream_on_connected(struct stream *s);
/* ... or could not connect to s->backend. */
void
stream_on_connect_failed(struct stream *s, enum reason why);
/* The attempt has failed before its answer was whole: another one, or the end. */
void
stream_on_server_failed(struct stream *s, enum reason why);
/* The backend is out of this exchange, its end has gone; another attempt may begin. */
void
stream_leave_backend(struct stream *s);
/* The backend has said that it did nothing with the request: it is sent again, whatever the method,
 * unless some of its body has gone or the budget of retries is used up. With retries off the
 * connection counts as lost. */
void
stream_on_unprocessed(struct stream *s);
/* A reused connection died before a byte of the answer came, or a fresh one did. What a reused one
 * lost costs nothing. */
void
stream_on_server_lost(struct stream *s);

/* The request has left whole: what follows waits for the answer. */
void
stream_on_sent(struct stream *s);
/* The head of an answer, 1xx included. After a 101 either s has failed or is_tunnel is true: then
 * the server's end, too, carries raw bytes from here on. */
void
stream_on_response(struct stream *s, struct http_msg *m);
/* Body bytes and the end of the body, from one end to the other. In a tunnel: bytes, half-close. */
void
stream_on_body(struct stream *s, struct end *from, struct slice bytes);
void
stream_on_body_end(struct stream *s, struct end *from, struct http_msg *trailers);
/* What an end was given has left: the other may read on. */
void
stream_on_unblocked(struct stream *s, struct end *to);

/* The exchange must be over by due_ms (monotonic), whatever it is doing, or it fails with
 * total_timeout. 0: it may take any time. http. */
void
stream_set_deadline(struct stream *s, uint64_t due_ms);
/* From now on a byte of a body must pass every timeout_ms, whichever way, or it fails with
 * tunnel_idle. 0: no limit. http. */
void
stream_limit_silence(struct stream *s, uint32_t timeout_ms);
/* Bytes have passed, by another way than stream_on_body(): a pipe. http. */
void
stream_touch(struct stream *s);

/* End it: answer if that is still possible, else cut visibly; count; log. */
void
stream_fail(struct stream *s, enum reason why);

/* Must the other end stop reading? */
static inline bool
end_is_blocked(const struct end *e)
{
    return e->is_blocked || (e->conn && (conn_is_blocked(e->conn) || e->conn->is_splice_blocked));
}

/* How long a tunnel may be silent: the smaller of both, ms; 0: for ever. */
uint32_t
stream_tunnel_ms(const struct conf_listener *l, const struct conf_policy *policy);
/* A conf has been applied: tunnels of removed listeners and backends end within timeout_ms. */
void
stream_limit_tunnels(uint32_t timeout_ms);
/* Cut the tunnels whose time is over. Cheap when there is none. */
void
stream_cut_tunnels(void);

/* They are one block: stream_new_http(). */
static inline struct stream *
stream_of_http(struct stream_http *http)
{
    return (struct stream *)http - 1;
}

static inline struct end *
stream_other_end(struct stream *s, const struct end *e)
{
    return e == &s->client ? &s->server : &s->client;
}

#endif
