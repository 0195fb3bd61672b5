/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket.h - the key of a WebSocket's opening handshake and its answer (RFC 6455 4), which
 * HTTP/1 has and HTTP/2 (RFC 8441) has not. Pure.
 */
#ifndef SHARED_WEBSOCKET_H
#define SHARED_WEBSOCKET_H

#include <stdbool.h>

#include "shared/slice.h"

#define WEBSOCKET_RANDOM_BYTES 16
#define WEBSOCKET_KEY_LEN      24
#define WEBSOCKET_ACCEPT_LEN   28

/* The value of Sec-WebSocket-Key for these WEBSOCKET_RANDOM_BYTES, into out of WEBSOCKET_KEY_LEN +
 * 1 bytes. */
struct slice
websocket_write_key(const void *random, char *out);
/* The value of Sec-WebSocket-Accept that answers key, into out of WEBSOCKET_ACCEPT_LEN + 1 bytes.
 * Empty: not to be computed. */
struct slice
websocket_write_accept(struct slice key, char *out);
/* Is accept the answer to key? */
bool
websocket_is_accept(struct slice accept, struct slice key);

#endif
