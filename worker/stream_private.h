/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_private.h - what the parts of stream share.
 *
 * stream.c         one exchange: its states, its ends, counting, failing
 * stream_tunnel.c  exchanges that have become raw bytes both ways
 */
#ifndef WORKER_STREAM_PRIVATE_H
#define WORKER_STREAM_PRIVATE_H

#include "worker/stream.h"

/* The only place where a state changes. */
void
stream_enter(struct stream *s, enum stream_state state);
/* The head of an answer has come with this status: what the breaker is told of it. */
void
stream_report_answer(struct stream *s, unsigned status);
/* The head m of the answer, which goes to the client. */
void
stream_send_answer(struct stream *s, struct http_msg *m);

/* akashd itself answers, and the exchange has ended well: no backend has been chosen. body belongs
 * to m as long as that is not HTTP_BODY_NONE. */
void
stream_answer(struct stream *s, struct http_msg *m, struct slice body);

/* It is no request in flight any more. */
void
stream_uncount(struct stream *s);
/* A tunnel may live for long and must not keep a configuration alive. */
void
stream_unpin_conf(struct stream *s);
/* m is a 101: the exchange becomes a tunnel, if it was asked for, or fails. The client's end has
 * become one on return; the server's does as soon as it sees is_tunnel. */
void
stream_upgrade(struct stream *s, struct http_msg *m);
/* Would the client take m for the beginning of a tunnel that it is not? RFC 8441: to an extended
 * CONNECT any 2xx says so. */
bool
stream_is_mistakable(const struct stream *s, const struct http_msg *m);

#endif
