/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.h - what akashd itself answers: a short text with the reason and the request id, or the
 * listener's page for that status.
 */
#ifndef WORKER_REPLY_H
#define WORKER_REPLY_H

#include "shared/http.h"
#include "shared/reason.h"
#include "worker/stream.h"

#define REPLY_FIELDS 12
#define REPLY_TEXT   512
#define REPLY_MAX    1536 /* in HTTP/1 */

/* An answer whatever the protocol: head points into fields and text, so it stays where it is. */
struct reply {
    struct http_msg head; /* status and fields, Content-Length among them */
    struct slice body;    /* in text, or a page elsewhere */
    struct http_field fields[REPLY_FIELDS];
    char text[REPLY_TEXT];
};

/* The answer for why to a client of l that has no stream yet, with that id. Its body is good until
 * the next call. */
void
reply_make_early(struct reply *r, const struct conf_listener *l, enum reason why, struct slice id);
/* The answer to the request of s, which has failed with s->status. Gives s an id if it has none. */
void
reply_make_for(struct reply *r, struct stream *s, enum reason why);

/* The answer of a route: r->head of that status with Date, X-Request-ID and, for a body, its type
 * and length; there is room for one field more and LIMIT_FIELDS. */
void
reply_make_own(struct reply *r, struct stream *s, unsigned status, struct slice body);

/* Put it to c as HTTP/1. is_head: without the body (HEAD). */
void
reply_put_http1(struct conn *c, const struct reply *r, bool is_close, bool is_head);

#endif
