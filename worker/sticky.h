/* SPDX-License-Identifier: Apache-2.0
 *
 * sticky.h - clients that stay on a backend by a cookie (shared/sticky.h): what a request brings,
 * and what its answer takes along. All do nothing where the upstream has no sticky.
 */
#ifndef WORKER_STICKY_H
#define WORKER_STICKY_H

#include "worker/stream.h"

#define STICKY_FIELDS 1 /* that sticky_put_field adds at most */

/* s has its upstream: whom its cookie is for, if for anybody; backends do not see it. */
void
sticky_begin(struct stream *s);
/* The backend that s should go to, if it is usable; NULL: any. */
struct conf_backend *
sticky_backend(const struct stream *s);
/* Its answer goes to the client: with a cookie, if that has to change. */
void
sticky_put_field(struct stream *s, struct http_msg *m);

#endif
