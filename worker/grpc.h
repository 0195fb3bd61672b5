/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.h - what is different about an exchange of gRPC: its deadline, how it is told that it
 * failed, how long it may be silent, and how it is counted.
 *
 * A client of gRPC looks for grpc-status, not for the status of HTTP: what akashd itself has to say
 * is told with 200 and the code of the reason (shared/reason.h), without a body.
 */
#ifndef WORKER_GRPC_H
#define WORKER_GRPC_H

#include "worker/stream.h"

#define GRPC_FAILURE_FIELDS 2
#define GRPC_FAILURE_TEXT   160

/* Is this request one of gRPC, by its content-type? */
bool
grpc_is_request(const struct http_msg *req);

/* The request's head is complete: sets is_grpc, and the deadline that grpc-timeout asks for.
 * REASON_none, or bad_request when that is malformed. */
enum reason
grpc_begin(struct stream *s);
/* The head of the answer, m, has been given to the client. From here on only silence both ways ends
 * the stream, and its deadline. */
void
grpc_on_answer(struct stream *s, const struct http_msg *m);
/* The answer is whole. trailers may be NULL. */
void
grpc_on_answer_end(struct stream *s, const struct http_msg *trailers);
/* The exchange is over, and has failed unless s->reason is REASON_none: count it. */
void
grpc_count(const struct stream *s);

/* The status with which a failure is told, instead of that of its reason: 200 where an answer can
 * be made at all. */
unsigned
grpc_status_for(enum reason why, unsigned status);
/* grpc-status and grpc-message for why, of a head without body or of trailers: writes
 * GRPC_FAILURE_FIELDS fields, which point into text (GRPC_FAILURE_TEXT bytes). */
void
grpc_put_failure(struct http_field *fields, char *text, enum reason why);

#endif
