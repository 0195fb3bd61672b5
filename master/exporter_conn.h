/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter_conn.h - one connection to the metrics port: a head comes, an answer leaves.
 *
 * A conn is in the exporter's list and owns its socket. It frees itself when it is over, which may
 * be within any of the answering calls: they are the last thing that a caller does with it.
 */
#ifndef MASTER_EXPORTER_CONN_H
#define MASTER_EXPORTER_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "master/exporter.h"
#include "shared/addr.h"
#include "shared/http1.h"
#include "shared/list.h"

#define EXPORTER_ANSWER_MAX 1024 /* bytes of an answer's head */

/* A body, shared by the conns that are sending it. */
struct page {
    unsigned refs;
    uint64_t born_ms;
    const char *fields; /* further lines of the head, CRLF after each; NULL: none; not owned */
    char *text;
    size_t len;
};

/* One reference. Takes text. NULL without memory, or when text is NULL. */
struct page *
page_new(char *text, size_t len, uint64_t born_ms);
/* NULL is allowed. */
void
page_unref(struct page *page);

enum conn_state {
    CONN_HEAD,   /* the request's head is arriving */
    CONN_WAIT,   /* for a page in the making */
    CONN_ANSWER, /* the answer is leaving */
    CONN_LINGER  /* answered; what still comes is thrown away until the client has closed */
};

struct exporter_conn {
    struct list link;
    struct exporter *exporter;
    struct event_base *base;
    enum conn_state state;
    int fd;
    struct event io;
    struct event deadline;
    uint64_t due_ms;
    bool is_head; /* the method is HEAD */
    struct addr_ip peer;
    size_t filled; /* of head; scanned <= filled */
    size_t scanned;
    size_t lingered;     /* bytes thrown away */
    const void *awaited; /* CONN_WAIT: which page */
    struct page *page;
    size_t answer_len, sent;          /* sent counts answer and page */
    char answer[EXPORTER_ANSWER_MAX]; /* the answer's head */
    char head[EXPORTER_HEAD_MAX];
};

/* Serve a connected, non-blocking socket. Takes fd. NULL without memory (fd is closed then). The
 * caller puts the conn into its list and counts it. */
struct exporter_conn *
exporter_conn_open(struct exporter *exporter, struct event_base *base, int fd,
                   const struct addr *from);
void
exporter_conn_close(struct exporter_conn *c);

/* Wait for a page, which awaited stands for: nothing is read meanwhile. */
void
exporter_conn_park(struct exporter_conn *c, const void *awaited);

/* Answer with a page, of which a reference is taken over. */
void
exporter_conn_answer(struct exporter_conn *c, int status, const char *type, struct page *page);
/* Answer with a text, which is copied. */
void
exporter_conn_answer_text(struct exporter_conn *c, int status, const char *text);
/* Answer with the status as text. */
void
exporter_conn_answer_status(struct exporter_conn *c, int status);

/* What exporter.c does for a conn: serve a request without a body by GET or HEAD; hear of the
 * end. */
void
exporter_serve(struct exporter *exporter, struct exporter_conn *c, struct slice path,
               struct slice query);
void
exporter_on_conn_closed(struct exporter *exporter);

#endif
